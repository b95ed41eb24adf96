// The step around the layers, over the plan and the sequences' state in memory
// (`ir/contract/step_layout.py`): a program's inputs before it, what a head picked behind it. What
// they mean: `backends/runtime/step_rows.py`. Parameters are those of the GPUs' kernels of the same
// names, in their order (`gpu_kernels/lowerings/step.py`), less what says how they are cut, and
// then max_reqs and max_rows.
//
// Indices and counts come from memory, which a foreign artifact's launches may have written: each
// is held within the arrays that it is for.

#include "team.h"

namespace {

// Numbers of the plan's header.
enum Header {
  NUM_SEQS,
  NUM_ROWS,
  NUM_LOGITS,
  NUM_DRAFTING,
  DRAFTS,
  IS_DECODE,
  NUM_TOKENS,
  NEXT_STAGE,
  STAGE,
  CURSOR,
  FIRST
};
const int64_t HEADER_SIZE = 16;
const uint32_t PLACES = 4;

const int32_t NONE = -1;      // where a token, a row or a position would stand
const int32_t TRASH_PAGE = 0; // also the slot of what has no token
const int32_t OUTPUT = 2;     // what a token that was picked adds to its count

// Parameters one after another.
struct Given {
  void **params;
  int count = 0;
  int32_t *numbers() { return pointer<int32_t>(params, count++); }
  float *floats() { return pointer<float>(params, count++); }
  int64_t integer() { return ::integer(params, count++); }
};

inline int64_t within(int64_t value, int64_t least, int64_t most) {
  return value < least ? least : value > most ? most : value;
}

// A thread that comes late may still read it (`real_rows`).
void write_rows(int32_t *num_rows, int64_t rows) {
  __atomic_store_n(num_rows, (int32_t)rows, __ATOMIC_RELAXED);
}

void fill(int32_t *out, int64_t begin, int64_t end, int32_t value) {
  for (int64_t i = begin; i < end; i++)
    out[i] = value;
}

void copy_numbers(int32_t *out, const int32_t *from, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    out[i] = from[i];
}

// What bodies read of the state, and their inputs.
struct Body {
  const int32_t *pages, *length, *limit, *following;
  int32_t *tokens, *positions, *slots, *q_starts, *kv_lens, *page_table;

  explicit Body(Given &given)
      : pages(given.numbers()), length(given.numbers()), limit(given.numbers()),
        following(given.numbers()), tokens(given.numbers()), positions(given.numbers()),
        slots(given.numbers()), q_starts(given.numbers()), kv_lens(given.numbers()),
        page_table(given.numbers()) {}

  // A row of a sequence: padding where it has no token or lies at the limit; whether it has one.
  bool row(int64_t at, int32_t token, int64_t position, int64_t end, const int32_t *own,
           int64_t page_tokens) const {
    bool is_real = token >= 0 && position >= 0 && position < end;
    tokens[at] = is_real ? token : NONE;
    positions[at] = is_real ? (int32_t)position : NONE;
    slots[at] = is_real ? (int32_t)(own[position / page_tokens] * page_tokens +
                                    position % page_tokens)
                        : TRASH_PAGE;
    return is_real;
  }

  // What a request has one of.
  void request(int64_t b, int64_t end, int64_t seen, const int32_t *own, int64_t wide) const {
    q_starts[b + 1] = (int32_t)end;
    kv_lens[b] = (int32_t)seen;
    if (own)
      copy_numbers(page_table + b * wide, own, wide);
    else
      fill(page_table, b * wide, (b + 1) * wide, TRASH_PAGE);
  }

  // Rows behind the step's, and what begins its lists.
  void padding(int64_t rows, int64_t all, int32_t *num_rows) const {
    q_starts[0] = 0;
    write_rows(num_rows, rows);
    fill(tokens, rows, all, NONE);
    fill(positions, rows, all, NONE);
    fill(slots, rows, all, TRASH_PAGE);
  }
};

} // namespace

extern "C" {

// Take the step's plan out of its place in the box.
void KERNEL(step_receive)(void **params, Team *team) {
  Given given = {params};
  const int32_t *box = given.numbers(), *turn = given.numbers();
  int32_t *plan = given.numbers();
  int64_t place_size = given.integer(), seq_stride = given.integer();
  int64_t logit_stride = given.integer(), by_seq = given.integer(), by_logit = given.integer();
  int64_t max_reqs = given.integer(), max_rows = given.integer();
  while (take(team, 1) >= 0) {
    const int32_t *place = box + ((uint32_t)*turn % PLACES) * place_size;
    const int32_t *from = place + HEADER_SIZE;
    int32_t *to = plan + HEADER_SIZE;
    copy_numbers(plan, place, HEADER_SIZE);
    for (int64_t i = 0; i < by_seq + by_logit; i++) {
      int64_t size = i < by_seq ? within(place[NUM_SEQS], 0, max_reqs) + 1
                                : within(place[NUM_LOGITS], 0, max_rows);
      copy_numbers(to, from, size);
      from += size;
      to += i < by_seq ? seq_stride : logit_stride;
    }
    copy_numbers(to, from, within(place[NUM_TOKENS], 0, max_rows));
  }
}

// The inputs of an extend or decode body: a chunk a sequence, and one for the padding.
void KERNEL(step_derive)(void **params, Team *team) {
  Given given = {params};
  const int32_t *header = given.numbers(), *seqs = given.numbers(), *begins = given.numbers();
  const int32_t *brought = given.numbers();
  Body body(given);
  int32_t *num_rows = given.numbers(), *turn = given.numbers();
  int64_t all = given.integer(), reqs = given.integer(), wide = given.integer();
  int64_t max_pages = given.integer(), follow = given.integer(), page_tokens = given.integer();
  int64_t max_reqs = given.integer(), most = smaller(given.integer(), all); // rows
  int64_t rows = within(header[NUM_ROWS], 0, most);
  int64_t count = within(header[NUM_SEQS], 0, max_reqs);
  bool is_decode = header[IS_DECODE];
  for (int64_t b; (b = take(team, reqs + 1)) >= 0;) {
    if (b == reqs) {
      *turn = (int32_t)((uint32_t)*turn + 1);
      body.padding(rows, all, num_rows);
    } else if (b >= count) {
      body.request(b, rows, 0, nullptr, wide);
    } else {
      int64_t seq = within(seqs[b], 0, max_reqs), start = body.length[seq];
      int64_t first = within(begins[b], 0, most), end = within(begins[b + 1], first, most);
      int64_t limit = smaller(body.limit[seq], max_pages * page_tokens);
      const int32_t *own = body.pages + seq * max_pages, *next = body.following + seq * follow;
      int64_t held = 0;
      for (int64_t row = first; row < end; row++) {
        int64_t at = row - first;
        int32_t token = !is_decode ? brought[row] : at < follow ? next[at] : NONE;
        held += body.row(row, token, start + at, limit, own, page_tokens);
      }
      body.request(b, end, start + held, own, wide);
    }
  }
}

// The same of a draft body: the first draft sees all rows, the next ones a row a sequence that
// picks.
void KERNEL(step_derive_draft)(void **params, Team *team) {
  Given given = {params};
  const int32_t *header = given.numbers(), *seqs = given.numbers(), *begins = given.numbers();
  const int32_t *starts = given.numbers(), *drafting = given.numbers();
  const int32_t *last_rows = given.numbers(), *behind = given.numbers();
  Body body(given);
  int32_t *hidden_rows = given.numbers(), *num_rows = given.numbers();
  int64_t all = given.integer(), reqs = given.integer(), wide = given.integer();
  int64_t max_pages = given.integer(), follow = given.integer(), page_tokens = given.integer();
  int64_t max_reqs = given.integer(), most = smaller(given.integer(), all); // rows
  int64_t stage = within(header[NEXT_STAGE], 0, follow - 1);
  bool is_first = stage <= 1;
  int64_t count = within(header[is_first ? NUM_SEQS : NUM_DRAFTING], 0, max_reqs);
  int64_t rows = within(header[is_first ? NUM_ROWS : NUM_DRAFTING], 0, most);
  for (int64_t b; (b = take(team, reqs + 1)) >= 0;) {
    if (b == reqs) {
      body.padding(rows, all, num_rows);
      fill(hidden_rows, rows, all, NONE);
    } else if (b >= count) {
      body.request(b, rows, 0, nullptr, wide);
    } else {
      int64_t seq = within((is_first ? seqs : drafting)[b], 0, max_reqs);
      int64_t limit = smaller(body.limit[seq], max_pages * page_tokens);
      int64_t first = within(is_first ? begins[b] : b, 0, most);
      int64_t end = within(is_first ? begins[b + 1] : b + 1, first, most);
      int64_t start = is_first ? starts[b] : smaller(body.length[seq] + stage - 2, limit);
      const int32_t *own = body.pages + seq * max_pages;
      int32_t draft = body.following[seq * follow + larger(stage - 1, 0)];
      int64_t held = 0;
      for (int64_t row = first; row < end; row++) {
        hidden_rows[row] = stage == 2 ? last_rows[row] : (int32_t)row;
        int32_t token = is_first ? behind[row] : draft;
        held += body.row(row, token, start + row - first, limit, own, page_tokens);
      }
      body.request(b, end, start + held, own, wide);
    }
  }
}

// A head's inputs; it also says where the step is, for this head and the next.
void KERNEL(step_derive_logits)(void **params, Team *team) {
  Given given = {params};
  int32_t *header = given.numbers();
  const int32_t *seqs = given.numbers(), *begins = given.numbers(), *rows = given.numbers();
  const int32_t *owners = given.numbers(), *plan_targets = given.numbers();
  const int32_t *plan_masks = given.numbers(), *drafting = given.numbers();
  const int32_t *last_rows = given.numbers();
  const int32_t *length = given.numbers(), *num_prompt = given.numbers();
  const float *own_temperature = given.floats();
  const int32_t *own_top_k = given.numbers();
  const float *own_top_p = given.floats(), *own_min_p = given.floats();
  const int32_t *own_seed = given.numbers(), *counted = given.numbers();
  const float *own_repetition = given.floats(), *own_frequency = given.floats();
  const float *own_presence = given.floats();
  const int32_t *following = given.numbers(), *biased = given.numbers();
  const int32_t *min_outputs = given.numbers();
  int32_t *logit_rows = given.numbers();
  float *temperature = given.floats();
  int32_t *seeds = given.numbers(), *counters = given.numbers(), *top_k = given.numbers();
  float *top_p = given.floats(), *min_p = given.floats();
  int32_t *count_rows = given.numbers(), *recent = given.numbers();
  float *repetition = given.floats(), *frequency = given.floats(), *presence = given.floats();
  int32_t *bias_rows = given.numbers(), *mask_rows = given.numbers(), *targets = given.numbers();
  int32_t *num_rows = given.numbers();
  int64_t all = given.integer(), follow = given.integer(), num_recent = given.integer();
  int64_t max_reqs = given.integer(), max_rows = given.integer();
  while (take(team, 1) >= 0) {
    int64_t cursor = within(header[CURSOR], 0, max_rows);
    int64_t stage = within(header[cursor ? STAGE : NEXT_STAGE], 0, follow - 1);
    int64_t wanted = stage ? within(header[NUM_DRAFTING], 0, max_reqs)
                           : within(header[NUM_LOGITS], 0, max_rows);
    header[FIRST] = (int32_t)cursor;
    header[STAGE] = (int32_t)stage;
    header[NEXT_STAGE] = (int32_t)stage + 1;
    header[CURSOR] = cursor + all >= wanted ? 0 : (int32_t)(cursor + all);
    write_rows(num_rows, larger(smaller(wanted - cursor, all), 0));
    for (int64_t at = 0; at < all; at++) {
      int64_t number = cursor + at;
      bool is_real = number < wanted, of_body = is_real && !stage;
      int64_t owner = of_body ? within(owners[number], 0, max_reqs) : 0;
      int64_t seq = !is_real ? 0 : within(of_body ? seqs[owner] : drafting[number], 0, max_reqs);
      int64_t row = of_body ? rows[number] : is_real && stage == 1 ? last_rows[number] : number;
      // Logits are about the token behind the row's; a draft's about the one behind that.
      int64_t ahead = of_body ? row - begins[owner] + 1 : stage;
      int64_t count = larger(length[seq] + ahead - num_prompt[seq], 0);
      int32_t target = of_body ? plan_targets[number] : NONE;
      bool picks = is_real && target < 0, is_counted = picks && counted[seq] > 0;
      logit_rows[at] = is_real ? (int32_t)row : NONE;
      counters[at] = is_real ? (int32_t)count : 0;
      seeds[at] = is_real ? own_seed[seq] : 0;
      targets[at] = target;
      mask_rows[at] = of_body ? plan_masks[number] : NONE;
      temperature[at] = picks ? own_temperature[seq] : 0.0f;
      top_k[at] = picks ? own_top_k[seq] : 0;
      top_p[at] = picks ? own_top_p[seq] : 1.0f;
      min_p[at] = picks ? own_min_p[seq] : 0.0f;
      repetition[at] = picks ? own_repetition[seq] : 1.0f;
      frequency[at] = picks ? own_frequency[seq] : 0.0f;
      presence[at] = picks ? own_presence[seq] : 0.0f;
      count_rows[at] = is_counted ? (int32_t)seq : NONE;
      bool is_early = count < min_outputs[seq];
      bias_rows[at] = picks && biased[seq] > 0 ? (int32_t)(2 * seq + is_early) : NONE;
      // In a step that decodes the first token that follows is an output, and counted.
      bool follows = is_counted && (stage > 0 || header[IS_DECODE]);
      for (int64_t i = 0; i < num_recent; i++) {
        bool stands = follows && i + 1 < follow && i < ahead - 1;
        recent[at * num_recent + i] = stands ? following[seq * follow + i + 1] : NONE;
      }
    }
  }
}

// Behind the body's last head take over the drafts that hold, behind a draft's head the draft.
void KERNEL(step_advance)(void **params, Team *team) {
  Given given = {params};
  const int32_t *header = given.numbers(), *seqs = given.numbers(), *begins = given.numbers();
  const int32_t *logit_starts = given.numbers(), *picks = given.numbers();
  const int32_t *behind = given.numbers(), *brought = given.numbers();
  int32_t *starts = given.numbers(), *drafting = given.numbers(), *last_rows = given.numbers();
  int32_t *draft_tokens = given.numbers(), *picked = given.numbers();
  int32_t *length = given.numbers();
  const int32_t *limits = given.numbers(), *num_prompt = given.numbers();
  int32_t *following = given.numbers();
  const int32_t *counted = given.numbers();
  int32_t *counts = given.numbers();
  const int32_t *ids = given.numbers();
  int64_t all = given.integer();
  int64_t vocab = given.integer(); // 0 where no row that is counted picks
  int64_t follow = given.integer(), max_reqs = given.integer(), max_rows = given.integer();
  while (take(team, 1) >= 0) {
    int64_t stage = within(header[STAGE], 0, follow - 1);
    int64_t first = within(header[FIRST], 0, max_rows);
    bool is_decode = header[IS_DECODE];
    if (stage > 0) {
      int64_t end = smaller(first + all, within(header[NUM_DRAFTING], 0, max_reqs));
      for (int64_t b = first; b < end; b++) {
        int64_t seq = within(drafting[b], 0, max_reqs);
        int32_t *own = following + seq * follow + stage;
        bool holds = own[-1] >= 0 && length[seq] + stage < limits[seq];
        *own = holds ? ids[b - first] : NONE;
      }
      continue;
    }
    bool is_last = first + all >= header[NUM_LOGITS];
    int64_t num_drafting = 0;
    for (int64_t b = 0; b < within(header[NUM_SEQS], 0, max_reqs); b++) {
      int64_t count = within(picks[b], 0, smaller(follow, max_rows));
      int64_t logit = within(logit_starts[b + 1] - count, 0, max_rows - count);
      for (int64_t at = larger(logit, first); at < smaller(logit + count, first + all); at++)
        picked[at] = ids[at - first];
      if (!is_last)
        continue;
      const int32_t *got = picked + logit;
      int64_t seq = within(seqs[b], 0, max_reqs), start = length[seq];
      int64_t begin = within(begins[b], 0, max_rows), end = within(begins[b + 1], begin, max_rows);
      int32_t *own = following + seq * follow;
      int64_t accepted = count ? 0 : -1; // the last pick that holds
      while (accepted + 1 < count && own[accepted + 1] >= 0 &&
             own[accepted + 1] == got[accepted])
        accepted++;
      int64_t last = count ? end - count + accepted : end - 1;
      int32_t follows = count ? got[accepted] : NONE;
      length[seq] = (int32_t)smaller(start + last + 1 - begin, limits[seq]);
      if (header[DRAFTS] > 0) {
        // Where no draft will ever be wanted, the layer has seen none of the rows before.
        bool may_draft = larger(length[seq], num_prompt[seq]) + 1 < limits[seq];
        for (int64_t row = begin; row < end; row++) {
          int64_t next = row - begin + 1;
          int32_t seen = NONE;
          if (may_draft && row == last)
            seen = count ? follows : behind[b];
          else if (may_draft && row < last)
            seen = !is_decode ? brought[row + 1] : next < follow ? own[next] : NONE;
          draft_tokens[row] = seen;
        }
        starts[b] = (int32_t)start;
        if (count) {
          drafting[num_drafting] = (int32_t)seq;
          last_rows[num_drafting++] = (int32_t)last;
        }
      }
      // A head's ids follow from the model's numbers: one that is no id must not be written at.
      for (int64_t i = 0; i <= accepted && counted[seq] > 0; i++)
        if (got[i] >= 0 && got[i] < vocab)
          counts[seq * vocab + got[i]] += OUTPUT;
      fill(own, 0, follow, NONE);
      own[0] = follows;
    }
  }
}

// Put what a head gave into the step's place of the box: its rows behind the body, a draft of each
// sequence behind a draft.
void KERNEL(step_send)(void **params, Team *team) {
  Given given = {params};
  const int32_t *header = given.numbers(), *turn = given.numbers(), *drafting = given.numbers();
  const int32_t *following = given.numbers();
  int32_t *box = given.numbers();
  const int32_t *ids = given.numbers(), *logprobs = given.numbers();
  const int32_t *target_logprobs = given.numbers(), *top_ids = given.numbers();
  const int32_t *top_logprobs = given.numbers();
  int64_t place_size = given.integer(), height = given.integer(), all = given.integer();
  int64_t follow = given.integer(), top = given.integer(), with_scores = given.integer();
  int64_t max_reqs = given.integer();
  while (take(team, 1) >= 0) {
    int32_t *place = box + (((uint32_t)*turn - 1) % PLACES) * place_size;
    int64_t stage = within(header[STAGE], 0, follow - 1), first = within(header[FIRST], 0, height);
    if (stage == 0) {
      int64_t rows = smaller(smaller(header[NUM_LOGITS], height) - first, all);
      copy_numbers(place + first, ids, rows);
      copy_numbers(place + height + first, logprobs, rows);
      if (with_scores) {
        int32_t *ranked = place + 3 * height + first * top;
        copy_numbers(place + 2 * height + first, target_logprobs, rows);
        copy_numbers(ranked, top_ids, rows * top);
        copy_numbers(ranked + height * top, top_logprobs, rows * top);
      }
    } else {
      int32_t *drafts = place + (3 + 2 * top) * height;
      for (int64_t b = 0; b < within(header[NUM_DRAFTING], 0, max_reqs); b++) {
        int64_t seq = within(drafting[b], 0, max_reqs);
        drafts[b * (follow - 1) + stage - 1] = following[seq * follow + stage];
      }
    }
  }
}
}
