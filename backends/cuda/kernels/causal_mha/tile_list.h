// The list of query tiles that causal_mha_tiles.cu writes once a step and causal_mha.cu reads in each
// layer. Computes nothing.
#pragma once

constexpr int TILE_ROWS = 128;  // query rows of a tile, of one request
constexpr int ENTRY = 8;        // ints of an entry; the first entry has the number of tiles

// Contexts lie behind one another in the workspace, in the order of the requests.
struct QueryTile {
  int row, rows;  // the step's first row, and how many of TILE_ROWS there are
  int context;    // where the request's context begins in the workspace
  int length;     // of it
  int reach;      // the last position of the rows, and one: keys that some row sees
  int least;      // the first position of a row with a token: all rows see the keys up to it
};
