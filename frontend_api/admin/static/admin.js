/* What htmx leaves open: keys, selecting all, and a server that cannot be reached. */
(() => {
  "use strict";
  document.documentElement.classList.add("js");
  const byId = (id) => document.getElementById(id);

  // Nobody looks at a hidden page: it is not kept fresh, and looks again when it is seen.
  document.addEventListener("htmx:before:request", (event) => {
    if (document.hidden && ["part", "around"].includes(event.detail.ctx.sourceElement.id)) event.preventDefault();
  });
  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) htmx.trigger(document.body, "fresh");
  });

  // `/` goes to the search, `j` and `k` to the next and previous row.
  const typing = (element) => element.closest?.("input, textarea, select, [contenteditable]");
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || typing(event.target)) return;
    if (event.key === "/") {
      const search = document.querySelector("[data-search]");
      if (search) {
        event.preventDefault();
        search.focus();
      }
    } else if (event.key === "j" || event.key === "k") {
      const rows = [...document.querySelectorAll("[data-row]")];
      const at = rows.findIndex((row) => row.closest("tr").contains(document.activeElement));
      const to = event.key === "j" ? at + 1 : at < 0 ? rows.length - 1 : at - 1;
      rows[to]?.focus();
    }
  });

  document.addEventListener("change", (event) => {
    if (!event.target.matches("[data-all]")) return;
    for (const box of document.querySelectorAll("input[name=row]")) box.checked = event.target.checked;
  });

  const reachable = (yes) => { byId("offline").hidden = yes; };
  document.addEventListener("htmx:error", (event) => { if (event.detail.ctx) reachable(false); });
  document.addEventListener("htmx:before:response", (event) => {
    const { status, headers } = event.detail.ctx.response;
    const ours = status === 204 || headers.get("vary")?.includes("HX-Request");
    if (!ours) event.preventDefault();
    reachable(Boolean(ours));
  });
  document.addEventListener("htmx:after:swap", () => {
    document.documentElement.dataset.live = "yes";
  });
  window.addEventListener("offline", () => reachable(false));
  window.addEventListener("online", () => htmx.trigger(document.body, "fresh"));
})();
