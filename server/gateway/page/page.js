// Chats with the server that this page came from, and shows what it tells of itself.
//
// What the model or the server says is only ever set as text. A key is held by one variable, and is
// gone with the page.

import { ChoicesView } from "/page/choices.js";
import {
  Answer, EventReader, messagesOf, readMetrics, shownMetrics, sureness,
} from "/page/reading.js";
import { TokenView } from "/page/tokens.js";

const INTERVAL_MS = 2000;
const RANKED = 5;
const SHOWN_MS = 50; // what comes within is shown at once: each time lays the text out anew
const GONE = "the server does not answer: it has ended, or cannot be reached";

class Page {
  #key = "";
  #turns = [];
  #answering = null;
  #before = null;
  #model = "";
  #hasDeclined = false; // to give a key: nobody is asked twice for the metrics' sake

  constructor(document) {
    this.document = document;
    this.at = (id) => document.getElementById(id);
    this.tokens = new TokenView(this);
  }

  start() {
    const on = (id, event, act) => this.at(id).addEventListener(event, act);
    on("composer", "submit", (event) => { event.preventDefault(); this.ask(); });
    on("question", "keydown", (event) => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        this.ask();
      }
    });
    on("stop", "click", () => this.#answering?.abort());
    on("clear", "click", () => this.cutAt(0));
    this.document.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      this.tokens.tip(null);
      this.#answering?.abort();
    });
    const choices = new ChoicesView(this);
    const turn = () => this.turnTo(location.hash.slice(1), choices);
    addEventListener("hashchange", turn);
    turn();
    this.watch();
  }

  /** The view that the address names: the choices, or else the chat. */
  turnTo(name, choices) {
    const isChoices = name === "choices";
    this.at("talk").hidden = isChoices;
    this.at("choices").hidden = !isChoices;
    const [shown, other] = isChoices ? ["to-choices", "to-chat"] : ["to-chat", "to-choices"];
    this.at(shown).setAttribute("aria-current", "page");
    this.at(other).removeAttribute("aria-current");
    if (isChoices) choices.open();
    if (name === "question") this.at("question").focus(); // it may have been hidden until now
  }

  element(name, attributes = {}, ...children) {
    const made = this.document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children); // texts become text nodes
    return made;
  }

  button(text, act) {
    const made = this.element("button", { type: "button" }, text);
    made.addEventListener("click", act);
    return made;
  }

  say(text) { this.at("said").textContent = text; }

  /** The server's state; a screen reader hears it when it changes. */
  tell(text) {
    const state = this.at("state");
    if (state.textContent !== text) state.textContent = text;
  }

  // Requests

  async request(path, options = {}) {
    for (;;) {
      const headers = { ...options.headers };
      if (this.#key) headers.Authorization = `Bearer ${this.#key}`;
      const answer = await fetch(path, { ...options, headers, cache: "no-store" }).catch((error) => {
        throw options.signal?.aborted ? error : new Error(GONE);
      });
      if (answer.status !== 401) return answer;
      this.#key = await this.askKey(await this.reason(answer));
    }
  }

  /** What an answer that is an error says; one that does not come from our server says little. */
  async reason(answer) {
    try {
      return (await answer.json()).error.message;
    } catch {
      return `the server answers ${answer.status} without a reason`;
    }
  }

  /** What the server told last of its work, as a map from series to numbers. */
  get metrics() { return this.#before?.values; }

  askKey(why) {
    this.asked ??= new Promise((resolve, reject) => {
      const dialog = this.at("key-dialog");
      const input = this.at("key");
      const end = (settle) => { this.asked = null; input.value = ""; dialog.close(); settle(); };
      this.at("key-why").textContent = why;
      this.at("key-form").onsubmit = (event) => {
        event.preventDefault();
        const key = input.value.trim();
        end(() => resolve(key));
      };
      const leave = () => end(() => {
        this.#hasDeclined = true;
        reject(new Error("no key was given"));
      });
      this.at("key-cancel").onclick = leave;
      dialog.oncancel = leave;
      dialog.showModal();
    });
    return this.asked;
  }

  /** The request for the next turn. Throws, in words, where the tools are no JSON. */
  body(turns) {
    const value = (id) => this.at(id).value.trim();
    const body = {
      model: this.#model,
      messages: messagesOf(value("system"), turns),
      stream: true,
      stream_options: { include_usage: true },
      chat_template_kwargs: { thinking: this.at("thinking").checked },
    };
    if (value("temperature")) body.temperature = Number(value("temperature"));
    if (value("max-tokens")) body.max_tokens = Number(value("max-tokens"));
    if (value("tools")) body.tools = toolsOf(value("tools"));
    if (this.at("probabilities").checked) {
      Object.assign(body, { logprobs: true, top_logprobs: RANKED });
    }
    return body;
  }

  // Turns

  ask() {
    const input = this.at("question");
    const content = input.value.trim();
    if (!content || this.#answering) return;
    this.#hasDeclined = false;
    input.value = "";
    this.add({ role: "user", content });
    this.answer();
  }

  add(turn) {
    const index = this.#turns.push(turn) - 1;
    const who = { user: "You", tool: "Result of a tool" }[turn.role];
    const shown = this.element("article", {}, this.element("h3", {}, who));
    shown.append(this.element("div", { class: "text" }, turn.content));
    if (turn.role === "user") {
      shown.append(this.element("p", { class: "buttons" }, this.button("Edit", () => {
        this.cutAt(index); // an answer that still comes is stopped
        this.at("question").value = turn.content;
      })));
    }
    this.at("log").append(shown);
  }

  cutAt(index) {
    this.#answering?.abort();
    this.#turns.length = index;
    [...this.at("log").children].slice(index).forEach((each) => each.remove());
    this.at("question").focus();
  }

  async answer() {
    const answer = new Answer();
    const before = [...this.#turns];
    this.#turns.push(answer);
    const shown = this.element("article", { "aria-busy": "true" }, this.element("h3", {}, "Model"));
    this.at("log").append(shown);
    this.at("log").scrollTop = this.at("log").scrollHeight;
    const stop = (this.#answering = new AbortController());
    this.at("stop").disabled = false;
    this.at("send").disabled = true;
    this.say("Answering");
    const [places, pieces] = [{}, []];
    let timer = null;
    const show = () => {
      clearTimeout(timer);
      timer = null;
      this.follow(() => this.show(shown, places, answer, pieces.splice(0)));
    };
    try {
      if (!this.#model) await this.nameModel();
      const body = this.body(before);
      await this.stream(body, stop.signal, (chunk) => {
        pieces.push(...answer.take(chunk));
        timer ??= setTimeout(show, SHOWN_MS);
      });
      show();
      this.say(`Answered: ${answer.usage?.completion_tokens ?? "?"} tokens, ${answer.finish}`);
    } catch (error) {
      show();
      const text = stop.signal.aborted ? "Stopped" : error.message;
      shown.append(this.element("p", { class: "wrong" }, text));
      this.say(text);
    } finally {
      this.#answering = null;
      this.at("stop").disabled = true;
      this.at("send").disabled = false;
      shown.setAttribute("aria-busy", "false");
      this.follow(() => this.finish(shown, answer));
    }
  }

  async stream(body, signal, take) {
    const answer = await this.request("/v1/chat/completions", {
      method: "POST", body: JSON.stringify(body), signal,
      headers: { "Content-Type": "application/json" },
    });
    if (!answer.ok) throw new Error(await this.reason(answer));
    const reader = answer.body.getReader();
    const decoder = new TextDecoder();
    const events = new EventReader();
    for (;;) {
      const { done, value } = await reader.read().catch((error) => {
        throw signal.aborted ? error : new Error(`the answer broke off: ${GONE}`);
      });
      for (const data of events.take(decoder.decode(value, { stream: !done }))) {
        if (data === "[DONE]") return;
        take(JSON.parse(data));
      }
      if (done) throw new Error("the answer broke off");
    }
  }

  /** Do something to the chat, whose end stays in sight if it was. */
  follow(act) {
    const log = this.at("log");
    const follows = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
    act();
    if (follows) log.scrollTop = log.scrollHeight;
  }

  /** Show what came since the last time. */
  show(shown, places, answer, pieces) {
    for (const { place, text, tokens } of pieces) {
      places[place] ??= this.place(shown, place);
      const least = Math.min(0, ...tokens.map((token) => token.logprob));
      const kind = tokens.length ? { class: `token ${sureness(least)}` } : {};
      const span = this.element("span", kind, text);
      if (tokens.length) this.tokens.set(span, tokens);
      places[place].append(span);
    }
    answer.calls.forEach((call, index) => {
      const shownCall = (places[`call ${index}`] ??= this.place(shown, "call"));
      shownCall.textContent = `${call.name}(${call.arguments})`;
    });
  }

  place(shown, kind) {
    const text = this.element(kind === "call" ? "pre" : "div", { class: "text" });
    if (kind === "reasoning") {
      shown.append(this.element("details", { open: "", class: "thought" },
        this.element("summary", {}, "Thinking"), text));
    } else if (kind === "call") {
      const title = this.element("h3", {}, "Calls a tool");
      shown.append(this.element("div", { class: "call" }, title, text));
    } else {
      shown.append(text);
    }
    return text;
  }

  /** What can be done with a whole answer: see its tokens, and give what its tools returned. */
  finish(shown, answer) {
    if (answer.tokens.length) {
      const summary = this.element("summary", {}, "Token probabilities");
      const details = this.element("details", {}, summary);
      const fill = () => this.tokens.fill(details, answer.tokens);
      details.addEventListener("toggle", fill, { once: true });
      shown.append(details);
    }
    const calls = answer.wholeCalls;
    if (!calls.length) return;
    const inputs = calls.map(({ name }) => {
      const input = this.element("textarea", { rows: "2" });
      shown.append(this.element("label", {}, `Result of ${name}`, input));
      return input;
    });
    const send = this.button("Send the results", () => {
      if (this.#answering) return;
      send.disabled = true;
      calls.forEach(({ id }, index) =>
        this.add({ role: "tool", tool_call_id: id, content: inputs[index].value }));
      this.answer();
    });
    shown.append(this.element("p", { class: "buttons" }, send));
  }

  // What the server tells of itself

  async watch() {
    let hasMetrics = true;
    for (;;) {
      if (!this.document.hidden) {
        try {
          const health = await this.health();
          const { status, phase, percent } = health;
          this.tell(phase ? `${status}: ${phase}, ${percent} %` : status);
          const isReady = status === "ready" || status === "late";
          if (!this.#hasDeclined && !this.#model && isReady) await this.nameModel();
          if (!this.#hasDeclined && hasMetrics) hasMetrics = await this.measure();
        } catch (error) {
          if (!this.#hasDeclined) this.tell(error.message);
        }
      }
      await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS));
    }
  }

  async health() {
    const answer = await fetch("/health", { cache: "no-store" }).catch(() => {
      throw new Error(GONE);
    });
    return await answer.json();
  }

  async nameModel() {
    const answer = await this.request("/v1/models");
    if (!answer.ok) return;
    const [model] = (await answer.json()).data;
    this.#model = model.id;
    this.at("model").textContent = `${model.id}, up to ${model.max_model_len} tokens`;
  }

  /** Whether the server has metrics. */
  async measure() {
    const answer = await this.request("/metrics");
    if (answer.status === 404) {
      this.at("metrics-said").textContent = "Start the server with --enable-metrics to see them.";
      return false;
    }
    if (!answer.ok) return true;
    const now = readMetrics(await answer.text());
    const time = performance.now();
    const seconds = this.#before ? (time - this.#before.time) / 1000 : 0;
    const shown = shownMetrics(this.#before?.values, now, seconds);
    this.#before = { time, values: now };
    this.at("metrics-said").textContent = "";
    this.at("metrics").replaceChildren(...shown.flatMap(([name, value]) =>
      [this.element("dt", {}, name), this.element("dd", {}, value)]));
    return true;
  }
}

function toolsOf(text) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Error(`the tools are no JSON: ${error.message}`);
  }
}

new Page(document).start();
