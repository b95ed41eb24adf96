// The ids that a row is sampled from: top_k, top_p and min_p without a sort.
//
// A row's ids are counted and weighed by how far they lie below its largest logit, in bins that get
// wider; only ids of the bins in which top_k or top_p may end are put in order, digit by digit of
// their keys. What stays is a beginning of the row's order, so that one key says it. Masses are
// integers: the order in which they are added changes no bit. NucleusRows that ask for nothing, and those
// with a NaN, pass as they are: the engine notices it behind the pick.

#include "row_parts.h"

namespace {

const int BINS = 128, BITS = 3;     // eight bins while the distance doubles,
const int LEAST = (127 - 6) << BITS; // from 2^-6 on

struct Bin {
  int64_t mass, count;
};

struct Nucleus { // of a row
  float heat, share, least;
  int64_t first; // ids, 0 for all
  float top;     // its largest logit
  double whole;  // the mass of the likeliest id

  bool weighs() const { return heat > 0 && top == top && (first > 0 || share < 1); }
  bool narrows() const { return weighs() || (heat > 0 && top == top && least > 0); }

  // e^((x - top) / heat): how likely an id is beside the likeliest.
  vd ratio(vf x) const {
    vd distance = chosen(wide(x) < both(top), wide(x) - both(top), both(0.0));
    return exp_below(distance * both(1 / (double)heat));
  }
  vl mass(vf x) const { return __builtin_convertvector(ratio(x) * both(whole), vl); }

  // The bits of a distance as a whole number are in its order.
  vi bin(vf x) const {
    vi found = ((vi)chosen(x < same(top), same(top) - x, same(0.0f)) >> (23 - BITS)) - LEAST;
    found &= found > 0;
    vi is_inside = found < BINS;
    return (found & is_inside) | (~is_inside & (BINS - 1));
  }
};

// What all launches of a step are given.
struct NucleusRows {
  const float *logits, *temperature, *top_p, *min_p;
  const int32_t *top_k;
  float *tops; // [rows, parts]
  Bin *bins;   // [rows, parts, BINS]
  uint64_t *keys; // [rows]: of the last id that stays, 0 for all
  float *out;
  int64_t rows, width, ids, logits_row, out_row, count;
  double whole;

  explicit NucleusRows(void **params)
      : logits(pointer<float>(params, 0)), temperature(pointer<float>(params, 1)),
        top_p(pointer<float>(params, 3)), min_p(pointer<float>(params, 4)),
        top_k(pointer<int32_t>(params, 2)), tops(pointer<float>(params, 5)),
        bins(pointer<Bin>(params, 6)), keys(pointer<uint64_t>(params, 7)),
        out(pointer<float>(params, 8)), rows(real_rows(params, 9, integer(params, 10))),
        width(integer(params, 11)), ids(integer(params, 12)), logits_row(integer(params, 14)),
        out_row(integer(params, 15)), count(parts(width, ids)),
        whole((double)((int64_t)1 << integer(params, 13))) {}

  const float *of(int64_t row) const { return logits + row * logits_row; }

  // A row whose largest logit is taken to be `top`.
  Nucleus asked(int64_t row, float top) const {
    int64_t first = top_k[row] < width ? larger(top_k[row], 0) : 0;
    return {temperature[row], top_p[row], min_p[row], first, top, whole};
  }
  Nucleus asked(int64_t row) const {
    float top = NOTHING;
    if (asked(row, top).narrows()) // else nobody wrote it
      for (int64_t p = 0; p < count; p++)
        top = larger_of(top, tops[row * count + p]);
    return asked(row, top);
  }
};

inline void weigh(const float *x, const Nucleus &asked, Piece at, Bin *bins) {
  for (int b = 0; b < BINS; b++)
    bins[b] = {0, 0};
  for (int64_t i = at.begin; i < at.end; i += LANES) {
    vf here = logits_at(x, i, at.end);
    int32_t bin[LANES];
    int64_t mass[LANES];
    *(vi *)bin = asked.bin(here);
    *(vl *)mass = asked.mass(here);
    for (int64_t lane = 0; lane < smaller(LANES, at.end - i); lane++) {
      bins[bin[lane]].mass += mass[lane];
      bins[bin[lane]].count++;
    }
  }
}

struct Id {
  uint64_t key;
  int64_t mass;
};

// The ids of the row in bins first .. last, their keys no smaller than `least`, in `held`; how many.
inline int64_t list(const float *x, int64_t width, const Nucleus &asked, int first, int last,
                    uint64_t least, Id *held) {
  int64_t found = 0;
  for (int64_t i = 0; i < width; i += LANES) {
    vf here = logits_at(x, i, width);
    vi bin = asked.bin(here), is_inside = (bin >= first) & (bin <= last);
    if (!any(is_inside))
      continue;
    int32_t inside[LANES];
    int64_t mass[LANES];
    *(vi *)inside = is_inside;
    *(vl *)mass = asked.mass(here);
    for (int64_t lane = 0; lane < smaller(LANES, width - i); lane++) {
      uint64_t key = key_of(x[i + lane], i + lane);
      held[found] = {key, mass[lane]};
      found += inside[lane] && key >= least;
    }
  }
  return found;
}

// Of listed ids the key of the last one before which less than `wanted` stands, where `before` does
// before all of them: ids, or their mass. The list is lost.
inline uint64_t last_of(Id *held, int64_t count, int64_t before, double wanted, bool by_mass) {
  for (int shift = 56; count > 1; shift -= 8) {
    int64_t sums[256] = {}, counts[256] = {};
    for (int64_t i = 0; i < count; i++) {
      sums[held[i].key >> shift & 255] += by_mass ? held[i].mass : 1;
      counts[held[i].key >> shift & 255]++;
    }
    int digit = 256, last = 256;
    while (digit-- > 0)
      if (counts[digit]) {
        before += last < 256 ? sums[last] : 0;
        last = digit;
        if ((double)(before + sums[last]) >= wanted)
          break;
      }
    int64_t kept = 0;
    for (int64_t i = 0; i < count; i++)
      if ((int)(held[i].key >> shift & 255) == last)
        held[kept++] = held[i];
    count = kept;
  }
  return held[0].key;
}

// The key of the last id that stays, of a row that weighs its ids.
inline uint64_t last_kept(const float *x, int64_t width, const Nucleus &asked, const Bin *bins,
                          Id *held) {
  double share = asked.top == __builtin_inff() ? 0 : asked.share; // the first has the whole mass
  int64_t total = 0, before = 0;
  uint64_t ranked = 0;
  int bin = 0, first_bin = 0;
  if (asked.first > 0) {
    for (int64_t seen = bins[0].count; seen < asked.first && bin < BINS - 1;)
      seen += bins[++bin].count;
    int64_t count = list(x, width, asked, 0, bin, 0, held);
    ranked = last_of(held, count, 0, (double)asked.first, false);
    if (!(asked.share < 1))
      return ranked;
    count = list(x, width, asked, 0, bin, ranked, held);
    for (int64_t i = 0; i < count; i++)
      total += held[i].mass;
  } else {
    for (int b = 0; b < BINS; b++)
      total += bins[b].mass;
  }
  double wanted = share * (double)total;
  wanted = wanted > 0.5 ? wanted : 0.5; // masses are whole numbers: the first stays at any share
  if (asked.first <= 0) {
    while (bin < BINS - 1 && (double)(before + bins[bin].mass) < wanted)
      before += bins[bin++].mass;
    first_bin = bin;
  }
  int64_t count = list(x, width, asked, first_bin, bin, ranked, held);
  return last_of(held, count, before, wanted, true);
}

} // namespace

// Parameters of all four: logits, temperature, top_k, top_p, min_p, largest logits of parts, bins
// of parts, keys, out, num_rows, rows, width, ids of a part, bits of the likeliest id's mass, rows
// of logits and out.
extern "C" {

void KERNEL(nucleus_top)(void **params, Team *team) {
  NucleusRows rows(params);
  for (int64_t c; (c = take(team, rows.rows * rows.count)) >= 0;) {
    Piece at(c, rows.count, rows.ids, rows.width);
    if (rows.asked(at.row, 0).narrows())
      rows.tops[c] = top_of(rows.of(at.row), at.begin, at.end);
  }
}

void KERNEL(nucleus_weigh)(void **params, Team *team) {
  NucleusRows rows(params);
  for (int64_t c; (c = take(team, rows.rows * rows.count)) >= 0;) {
    Piece at(c, rows.count, rows.ids, rows.width);
    Nucleus asked = rows.asked(at.row);
    if (asked.weighs())
      weigh(rows.of(at.row), asked, at, rows.bins + c * BINS);
  }
}

// Scratch: key and mass of each of a row's ids.
void KERNEL(nucleus_rank)(void **params, Team *team) {
  NucleusRows rows(params);
  for (int64_t r; (r = take(team, rows.rows)) >= 0;) {
    Nucleus asked = rows.asked(r);
    rows.keys[r] = 0;
    if (!asked.weighs())
      continue;
    Bin bins[BINS] = {};
    for (int64_t b = 0; b < rows.count * BINS; b++) {
      bins[b % BINS].mass += rows.bins[r * rows.count * BINS + b].mass;
      bins[b % BINS].count += rows.bins[r * rows.count * BINS + b].count;
    }
    rows.keys[r] = last_kept(rows.of(r), rows.width, asked, bins, (Id *)team->scratch);
  }
}

void KERNEL(nucleus_cut)(void **params, Team *team) {
  NucleusRows rows(params);
  for (int64_t c; (c = take(team, rows.rows * rows.count)) >= 0;) {
    Piece at(c, rows.count, rows.ids, rows.width);
    Nucleus asked = rows.asked(at.row);
    const float *x = rows.of(at.row);
    float *out = rows.out + at.row * rows.out_row;
    copy(out + at.begin, x + at.begin, at.end - at.begin);
    uint64_t key = rows.keys[at.row];
    if (key) {
      int64_t last = id_of(key);
      float least = logit_of(key);
      for (int64_t id = at.begin; id < at.end; id++)
        out[id] = x[id] > least || (x[id] == least && id <= last) ? x[id] : NOTHING;
    }
    if (!asked.narrows() || !(asked.least > 0))
      continue;
    for (int64_t i = at.begin; i < at.end; i += LANES) {
      vl is_unlikely = asked.ratio(logits_at(x, i, at.end)) < both(asked.least);
      for (int64_t lane = 0; lane < smaller(LANES, at.end - i); lane++)
        out[i + lane] = is_unlikely[lane] ? NOTHING : out[i + lane];
    }
  }
}
}
