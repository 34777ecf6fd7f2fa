/* What htmx leaves open: where a post belongs, what becomes of the composer, and a lost connection. */
(() => {
  "use strict";
  document.documentElement.classList.add("js");
  const byId = (id) => document.getElementById(id);
  const composer = (elt) => elt?.closest?.("form[data-composer]");

  // Swap style "place": an element that is there already changes in place, a new one comes last.
  let internal;
  htmx.registerExtension("place", {
    init: (api) => { internal = api; },
    handle_swap: (style, target, fragment) => {
      if (style !== "place") return false;
      return [...fragment.children].map((fresh) => {
        const known = byId(fresh.id);
        if (!known) {
          target.append(fresh);
          return fresh;
        }
        const one = document.createDocumentFragment();
        one.append(fresh);
        internal.morph(known, one, false);
        return known;
      });
    },
    // What somebody has opened stays open.
    htmx_before_morph_attr: (elt, detail) => !(elt.tagName === "DETAILS" && detail.attrName === "open"),
  });

  // What is read before a change is sent must not be shown after it: it would take the change away
  // for a moment. While something is sent nothing is read, and afterwards it is read anew.
  let sending = 0;
  const changes = (ctx) => ctx.request.method === "POST";
  document.addEventListener("htmx:before:request", (event) => {
    const { ctx } = event.detail;
    if (changes(ctx)) {
      sending += 1;
      byId("trouble").replaceChildren(); // it was about the change before
      htmx.trigger("#part", "htmx:abort", {}, false);
    } else if (ctx.sourceElement.id === "part") {
      const idle = ctx.sourceEvent?.type === "every" && document.hidden;
      if (sending || idle) event.preventDefault();
    }
  });
  document.addEventListener("htmx:finally:request", (event) => {
    if (!changes(event.detail.ctx)) return;
    sending -= 1;
    const seen = byId("seen");
    if (seen) seen.value = "";
    if (!sending) htmx.trigger(document.body, "fresh");
  });

  // A post that was shown beside the page goes when the page has it; focus is never lost.
  let focused = null;
  document.addEventListener("focusin", (event) => { focused = event.target; });
  document.addEventListener("htmx:after:swap", () => {
    for (const late of [...byId("aside")?.children ?? []]) {
      if (byId("part").querySelector(`[id="${CSS.escape(late.id)}"]`)) late.remove();
    }
    if (document.activeElement === document.body && focused && !focused.isConnected) {
      byId("main").focus({ preventScroll: true });
    }
  });

  // The composer: kept while it is written, emptied only of what was sent.
  const draft = (form) => `draft ${form.getAttribute("action")}`;
  for (const form of document.querySelectorAll("form[data-composer]")) {
    const box = form.elements.body;
    box.value ||= sessionStorage.getItem(draft(form)) ?? "";
  }
  document.addEventListener("input", (event) => {
    const form = composer(event.target);
    if (form) sessionStorage.setItem(draft(form), form.elements.body.value);
  });
  let sent = null;
  document.addEventListener("htmx:before:request", (event) => {
    const { sourceElement } = event.detail.ctx;
    if (composer(sourceElement)) sent = sourceElement.elements.body.value;
  });
  document.addEventListener("posted", (event) => {
    const form = composer(event.target);
    if (!form) return;
    const box = form.elements.body;
    form.elements.key.value = event.detail.key;
    if (box.value === sent) {
      box.value = "";
      sessionStorage.removeItem(draft(form));
    }
    box.focus({ preventScroll: true });
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    if (event.target.tagName === "TEXTAREA") event.target.form?.requestSubmit();
  });

  // Copy text.
  document.addEventListener("click", async (event) => {
    const button = event.target.closest?.("[data-copy]");
    if (!button) return;
    const box = byId(button.dataset.copy);
    let told = "Copied.";
    try {
      await navigator.clipboard.writeText(box.value);
    } catch {
      box.hidden = false;
      box.select();
      told = "Press Ctrl and C to copy.";
    }
    byId("say").textContent = told;
    button.textContent = told;
  });

  // A server that cannot be reached, or answers for which something else stands in, says nothing
  // about the page: it stays as it is.
  const reachable = (yes) => { byId("offline").hidden = yes; };
  const trouble = (told) => {
    const said = document.createElement("p");
    said.className = "banner";
    said.textContent = told;
    byId("trouble").replaceChildren(said);
  };
  document.addEventListener("htmx:error", (event) => { if (event.detail.ctx) reachable(false); });
  document.addEventListener("htmx:sse:error", () => reachable(false));
  document.addEventListener("htmx:sse:after:connection", () => {
    document.documentElement.dataset.live = "yes";
    reachable(true);
  });
  document.addEventListener("htmx:before:response", (event) => {
    const { status, headers } = event.detail.ctx.response;
    const type = headers.get("content-type") ?? "";
    if (status === 204 || type.startsWith("text/event-stream")) {
      reachable(true);
    } else if (type.startsWith("text/html") && headers.get("vary")?.includes("HX-Request")) {
      reachable(true);
    } else {
      event.preventDefault();
      if (status === 413) trouble("The text is too long.");
      else if (status === 503 || status === 429) trouble("There is too much to do at the moment. Try again in a moment.");
      else reachable(false);
    }
  });
  window.addEventListener("offline", () => reachable(false));
  window.addEventListener("online", () => htmx.trigger(document.body, "fresh"));
})();
