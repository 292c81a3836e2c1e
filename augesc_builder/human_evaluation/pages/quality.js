// Keys for forms that work without any of this: a number answers, Enter goes on, and what is chosen
// is kept before it is sent. Nothing of a study is decided here.
"use strict";

(() => {
  const form = document.querySelector("form[data-keys]");
  if (!form) return;
  const questions = [...form.querySelectorAll("fieldset[data-question]")];
  const choices = (question) => [...question.querySelectorAll("input[type=radio]")];
  const isAnswered = (question) => choices(question).some((choice) => choice.checked);
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  const keys = document.querySelector("input[data-number-keys]");

  // Number keys can be turned off: they get in the way of those who speak to their machine.
  if (keys) {
    keys.closest("[hidden]")?.removeAttribute("hidden");
    keys.checked = localStorage.getItem("number-keys") !== "off";
    keys.addEventListener("change", () =>
      localStorage.setItem("number-keys", keys.checked ? "on" : "off"));
  }

  function current() {
    const focused = document.activeElement?.closest("fieldset[data-question]");
    return focused ?? questions.find((question) => !isAnswered(question)) ?? questions.at(-1);
  }

  function goTo(target) {
    const inside = target.matches("fieldset")
      ? choices(target).find((choice) => choice.checked) ?? choices(target)[0]
      : target;
    inside.focus({ preventScroll: true });
    target.scrollIntoView({ block: "nearest", behavior: calm ? "auto" : "smooth" });
  }

  function goOn(from) {
    const next = questions[questions.indexOf(from) + 1];
    goTo(next ?? questions.find((question) => !isAnswered(question)) ?? form.querySelector("button"));
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.isComposing || event.repeat) return;
    const at = event.target;
    if (at.matches("textarea, select, input:not([type=radio])")) return;
    const number = Number(event.key);
    const question = current();
    if (question && number >= 1 && number <= choices(question).length && (!keys || keys.checked)) {
      event.preventDefault();
      const choice = choices(question)[number - 1];
      if (!choice.checked) {
        choice.checked = true;
        choice.dispatchEvent(new Event("change", { bubbles: true }));
      }
      goOn(question);
    } else if (event.key === "Enter" && at.matches("input[type=radio]")) {
      event.preventDefault();
      const open = questions.find((other) => !isAnswered(other));
      if (open) goTo(open);
      else form.requestSubmit(form.querySelector("button[type=submit]"));
    }
  });

  // How many are answered, for eyes and for screen readers.
  const said = document.querySelector("[data-answered]");
  function count() {
    const n = questions.filter(isAnswered).length;
    if (said) said.textContent = said.dataset.answered.replace("N", n).replace("M", questions.length);
  }
  count();

  // What is chosen is kept at once, one request after the other; a page that is loaded again has it.
  // Every state of the form has a number, so that the server knows what it has got already.
  let keeping = null;
  let waits = false;
  async function keep() {
    do {
      waits = false;
      const body = new URLSearchParams(new FormData(form));
      body.set("go", "keep");
      await fetch(form.action, { method: "POST", body, keepalive: true }).catch(() => {});
    } while (waits);
    keeping = null;
  }
  form.addEventListener("change", (event) => {
    count();
    if (!form.dataset.keep || event.target.type !== "radio") return;
    form.elements.n.value = Number(form.elements.n.value) + 1;
    if (keeping) waits = true;
    else keeping = keep();
  });

  // What is being kept arrives before what is sent. The second click of a double click sends
  // nothing; should it, the server knows the form.
  let isSent = false;
  form.addEventListener("submit", (event) => {
    if (isSent) {
      event.preventDefault();
    } else if (keeping) {
      event.preventDefault();
      waits = false;
      const by = event.submitter;
      keeping.then(() => form.requestSubmit(by));
    } else {
      isSent = true;
    }
  });

  // A page that the browser had put aside is as old as that: it is drawn anew.
  addEventListener("pageshow", (event) => {
    isSent = false;
    if (event.persisted) location.reload();
  });
})();
