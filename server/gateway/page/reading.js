// Reads what the server says: streams of answers, metrics. Knows no document and asks nobody.

/** Cuts a stream of server-sent events into the data of each, however the text comes. */
export class EventReader {
  #rest = "";

  take(text) {
    const events = (this.#rest + text).split("\n\n");
    this.#rest = events.pop();
    return events
      .map((event) => event.split("\n").filter((line) => line.startsWith("data: ")))
      .filter((lines) => lines.length)
      .map((lines) => lines.map((line) => line.slice(6)).join("\n"));
  }
}

/** An answer as far as it came. `take` gives what a chunk adds to a text, with its tokens. */
export class Answer {
  reasoning = "";
  content = "";
  calls = [];
  tokens = [];
  finish = null;
  usage = null;
  #pending = [];

  take(chunk) {
    if (chunk.error) throw new Error(chunk.error.message);
    this.usage = chunk.usage ?? this.usage;
    const choice = chunk.choices?.[0];
    if (!choice) return [];
    const tokens = choice.logprobs?.content ?? [];
    this.tokens.push(...tokens);
    this.#pending.push(...tokens);
    const { reasoning_content: reasoning, content, tool_calls: calls } = choice.delta;
    const pieces = [];
    for (const [place, text] of [["reasoning", reasoning], ["content", content]]) {
      if (!text) continue;
      this[place] += text;
      pieces.push({ place, text, tokens: this.#pending.splice(0) });
    }
    for (const part of calls ?? []) {
      const call = (this.calls[part.index] ??= { id: part.id, name: "", arguments: "" });
      call.name += part.function?.name ?? "";
      call.arguments += part.function?.arguments ?? "";
    }
    this.finish = choice.finish_reason ?? this.finish;
    return pieces;
  }

  /** The calls that ended whole: of one that broke off the content has the text. */
  get wholeCalls() {
    return this.finish === "tool_calls" ? this.calls.filter(isWhole) : [];
  }

  /** As a message of the next request, with calls where results follow; null where it is empty. */
  message(hasResults) {
    const calls = hasResults ? this.wholeCalls : [];
    if (!this.content && !calls.length) return null;
    const message = { role: "assistant", content: this.content };
    if (!calls.length) return message;
    if (this.reasoning) message.reasoning_content = this.reasoning;
    message.tool_calls = calls.map(({ id, name, arguments: text }) => ({
      id, type: "function", function: { name, arguments: text },
    }));
    return message;
  }
}

function isWhole(call) {
  try {
    return JSON.parse(call.arguments) instanceof Object;
  } catch {
    return false;
  }
}

/** The messages of a request. What was never answered is left out, with its question. */
export function messagesOf(system, turns) {
  const found = system ? [{ role: "system", content: system }] : [];
  const isOpen = (last) => ["user", "tool"].includes(last?.role) || last?.tool_calls;
  turns.forEach((turn, index) => {
    const hasResults = turns[index + 1]?.role === "tool";
    const message = turn instanceof Answer ? turn.message(hasResults) : turn;
    if (message) found.push(message);
    else while (isOpen(found.at(-1))) found.pop();
  });
  return found;
}

/** Prometheus's text as a map from series to numbers. */
export function readMetrics(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    const at = line.lastIndexOf(" ");
    if (at > 0 && !line.startsWith("#")) found.set(line.slice(0, at), Number(line.slice(at + 1)));
  }
  return found;
}

/** Names and values of what is shown, of two readings some seconds apart (the first may lack). */
export function shownMetrics(before, now, seconds) {
  const of = (map, series) => map?.get(`lostwax_${series}`) ?? 0;
  const all = (series) =>
    ["slots", "room", "prompt"].reduce((n, r) => n + of(now, `${series}{reason="${r}"}`), 0);
  const rate = (series) => {
    const more = of(now, series) - of(before, series);
    return before && more >= 0 ? (more / seconds).toFixed(1) : "…"; // an engine began again at 0
  };
  const pages = ["used", "idle", "blank"].map((state) => of(now, `cache_pages{state="${state}"}`));
  const whole = pages.reduce((a, b) => a + b, 0);
  const drafted = of(now, "draft_tokens_total");
  const accepted = of(now, "accepted_draft_tokens_total");
  const queue = ["filled", "bound"].map((end) => of(now, `queue_${end}{of="answers"}`));
  const percent = (part, of) => (of ? `${((100 * part) / of).toFixed(0)} %` : "none");
  return [
    ["Tokens a second", rate("generation_tokens_total")],
    ["Prompt tokens a second", rate("prompt_tokens_total")],
    ["Running", String(of(now, "num_requests_running"))],
    ["Waiting", String(all("num_requests_waiting"))],
    ["Queue", queue.join(" of ")],
    ["Cache used", percent(pages[0], whole)],
    ["Cache kept for prefixes", percent(pages[1], whole)],
    ["Prompt tokens found in it", String(of(now, "prefix_cache_hit_tokens_total"))],
    ["Drafts accepted", percent(accepted, drafted)],
  ];
}

/** How sure the model was, as a class of the style sheet. */
export function sureness(logprob) {
  const kinds = [[0.9, "sure"], [0.5, "likely"], [0.1, "open"], [0, "rare"]];
  return kinds.find(([least]) => Math.exp(logprob) >= least)[1];
}

function percentOf(logprob) {
  const percent = 100 * Math.exp(logprob);
  return percent < 0.1 ? "< 0.1 %" : `${percent.toFixed(1)} %`;
}

/** Lines on a token: itself, then what stood beside it. */
export function tokenLines({ token, logprob, top_logprobs: ranked }) {
  const others = (ranked ?? []).filter((each) => each.token !== token);
  const line = (each) => `${JSON.stringify(each.token)} ${percentOf(each.logprob)}`;
  return [line({ token, logprob }), ...others.map((each) => `  ${line(each)}`)];
}
