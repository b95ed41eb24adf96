// How the selection of a query row lies in bits: of each tile of 128 keys 4 words, one for each of the four
// lanes that hold the row's scores (causal_mha/products.h), in the order of their registers. So a lane
// takes one word a tile, and needs no other bit of it.
#pragma once
#include "hopper/ptx.h"

constexpr int BIT_KEYS = 128, BIT_WORDS = 4;  // of a tile
INLINE u32 word_of(u32 key) { return key / BIT_KEYS * BIT_WORDS + key % 8 / 2; }
INLINE u32 bit_of(u32 key) { return key % BIT_KEYS / 8 * 2 + key % 2; }
