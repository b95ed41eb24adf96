// What index_tiles.cu lists once a step and index_logits.cu takes in each layer: tiles of rows, and
// where each CTA begins. Computes nothing.
#pragma once

constexpr int PAGE = 64;  // positions of a page

// Rows of one request that are scored together, against the pages up to the last position of any.
struct alignas(16) RowTile {
  int row, rows;  // the step's first row, and how many there are
  int request;
  int pages;
};

// A CTA takes the pages from its start to the next one's, tile after tile.
struct alignas(8) Start {
  int tile, page;
};
