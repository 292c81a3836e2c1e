// Messages sent without leaving the page, and replies shown while they are written. Everything works
// without any of this; what is drawn comes from the server, whole, after each change.
"use strict";

(() => {
  const form = document.querySelector("form[data-talk]");
  if (!form) return;
  document.documentElement.classList.add("scripted");
  const trouble = form.querySelector("[data-trouble]");
  const sending = new Set();
  let stream = null;
  let later = null;

  const side = (name) => form.querySelector(`[data-side="${name}"]`);
  const names = ["left", "right"];

  function say(text) {
    trouble.textContent = text;
    trouble.hidden = !text;
  }

  // To what came last; a notice of danger that is new is not scrolled away by the reply behind it.
  function toEnd(name) {
    const log = side(name).querySelector(".log");
    const notice = [...log.querySelectorAll(".aside .notice")].at(-1)?.closest("li");
    let next = notice;
    while (next && !next.matches(".seeker")) next = next.nextElementSibling;
    log.scrollTop = notice && !next ? notice.offsetTop - log.offsetTop : log.scrollHeight;
  }

  // Only what is new is put in: a screen reader reads that alone.
  function drawLines(name, fresh) {
    const old = form.querySelector(`[data-lines="${name}"]`);
    const lines = [...fresh.children];
    lines.forEach((line, i) => {
      if (i >= old.children.length) old.append(document.importNode(line, true));
      else if (old.children[i].outerHTML !== line.outerHTML)
        old.children[i].replaceWith(document.importNode(line, true));
    });
    while (old.children.length > lines.length) old.lastElementChild.remove();
  }

  function draw(html) {
    const page = new DOMParser().parseFromString(html, "text/html");
    const fresh = page.querySelector("form[data-talk]");
    if (!fresh) { location.reload(); return; }
    for (const input of fresh.querySelectorAll("input[type=hidden]"))
      if (form.elements[input.name]) form.elements[input.name].value = input.value;
    for (const name of names) drawLines(name, fresh.querySelector(`[data-lines="${name}"]`));
    for (const place of fresh.querySelectorAll("[data-redraw]")) {
      const old = form.querySelector(`[data-redraw="${place.dataset.redraw}"]`);
      if (!old || old.innerHTML === place.innerHTML) continue;
      const had = old.contains(document.activeElement) ? old.closest("[data-side]") : null;
      old.replaceChildren(...[...place.childNodes].map((node) => document.importNode(node, true)));
      had?.querySelector("textarea")?.focus();
    }
    for (const name of names) {
      const button = fresh.querySelector(`button[value="say-${name}"]`);
      const old = form.querySelector(`button[value="say-${name}"]`);
      if (button && old) old.disabled = button.disabled;
      toEnd(name);
    }
    follow();
  }

  async function ask(options) {
    clearTimeout(later);
    try {
      const answer = await fetch(location.href.split("#")[0], { cache: "no-store", ...options });
      const html = await answer.text();
      const there = new URL(answer.url).pathname;
      if (answer.redirected && there !== location.pathname) {
        location.assign(answer.url);
        return null;
      }
      if (answer.status >= 500 || !html.includes("data-talk")) {
        say(new DOMParser().parseFromString(html, "text/html").querySelector("main")?.innerText
          ?? "The server could not take this.");
        return null;
      }
      say("");
      draw(html);
      return answer;
    } catch {
      say("The server cannot be reached at the moment. What you wrote stays here; please try again.");
      later = setTimeout(() => ask({}), 5000);
      return null;
    }
  }

  // Replies that are being written come in one stream for both sides; it comes back by itself.
  function follow() {
    const due = names.some((name) => side(name).querySelector("[data-writing]"));
    if (!due) { stream?.close(); stream = null; return; }
    if (stream && stream.readyState !== EventSource.CLOSED) return;
    stream = new EventSource(form.dataset.live);
    stream.addEventListener("text", (event) => {
      const { side: name, text } = JSON.parse(event.data);
      const bubble = side(name)?.querySelector("[data-writing]");
      if (!bubble) return;
      bubble.textContent = text;
      toEnd(name);
    });
    stream.addEventListener("turn", () => ask({}));
    stream.addEventListener("end", () => { stream.close(); stream = null; ask({}); });
    stream.addEventListener("error", () => {
      if (stream?.readyState !== EventSource.CLOSED) return;
      stream = null;
      later = setTimeout(() => ask({}), 5000);
    });
  }

  async function send(name, go) {
    if (sending.has(name)) return;
    sending.add(name);
    const box = form.elements[`text-${name}`];
    const text = box?.value ?? "";
    const body = new URLSearchParams(new FormData(form));
    for (const other of names) if (other !== name || !go.startsWith("say")) body.delete(`text-${other}`);
    body.set("go", go);
    const answer = await ask({ method: "POST", body });
    if (answer?.ok && go.startsWith("say") && box.value === text) box.value = "";
    sending.delete(name);
    box?.focus({ preventScroll: true });
  }

  form.addEventListener("submit", (event) => {
    const go = event.submitter?.value ?? "";
    const name = go.split("-")[1];
    if (!names.includes(name)) return;
    event.preventDefault();
    send(name, go);
  });

  // Enter sends, Shift and Enter begin a new line.
  form.addEventListener("keydown", (event) => {
    const box = event.target;
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || !box.matches("textarea")) return;
    event.preventDefault();
    const button = form.querySelector(`button[value="say-${box.name.split("-")[1]}"]`);
    if (!button.disabled && box.value.trim()) button.click();
  });

  for (const name of names) toEnd(name);
  follow();
})();
