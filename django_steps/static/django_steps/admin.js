/* Keeps the page of an active run up to date: fetches it again and puts the parts marked `data-steps-live` in place.
   Does nothing while the tab is hidden. What is unfolded or focused stays so.

   And in the list, where the search and each date filter is a form of its own: sends what was typed into all of them. */
"use strict";

document.addEventListener("DOMContentLoaded", () => {
  const search = document.getElementById("changelist-search");
  const dates = [...document.querySelectorAll(".admindatefilter form")];
  if (search === null || dates.length === 0) {
    return;
  }

  function send(event) {
    event.preventDefault();
    event.stopImmediatePropagation();
    const address = new URL(window.location.href);
    ["p", "e"].forEach((name) => address.searchParams.delete(name));
    const typed = [search.querySelector("#searchbar"), ...dates.flatMap((form) => [...form.querySelectorAll("input[name]")])];
    typed.forEach((input) => {
      const value = input.value.trim();
      if (value === "") {
        address.searchParams.delete(input.name);
      } else {
        address.searchParams.set(input.name, value);
      }
    });
    window.location.assign(address);
  }

  search.addEventListener("submit", send);
  dates.forEach((form) => form.addEventListener("submit", send));
  // Before the filter's own listener, which sends its own dates only.
  document.addEventListener(
    "click",
    (event) => event.target.matches(".admindatefilter form input[type=submit]") && send(event),
    { capture: true },
  );
});

document.addEventListener("DOMContentLoaded", () => {
  const page = document.querySelector("[data-steps-refresh]");
  if (page === null) {
    return;
  }
  const pause = Number(page.dataset.stepsRefresh);
  let timer = null;

  function plan(factor) {
    window.clearTimeout(timer);
    if (!document.hidden) {
      timer = window.setTimeout(refresh, pause * factor);
    }
  }

  async function refresh() {
    const began = performance.now();
    try {
      const response = await fetch(window.location.href, { headers: { Accept: "text/html" } });
      if (!response.ok || response.redirected) {
        return; // logged out, or the run is gone: reloading by hand says which
      }
      const fresh = new DOMParser().parseFromString(await response.text(), "text/html");
      document.querySelectorAll("[data-steps-live]").forEach((part) => replace(part, fresh.getElementById(part.id)));
      if (fresh.querySelector("[data-steps-refresh]") !== null) {
        plan(Math.max(1, (4 * (performance.now() - began)) / pause)); // a large page rests longer
      }
    } catch {
      plan(5); // the server can't be reached: try again later
    }
  }

  function replace(part, fresh) {
    if (fresh === null || part.innerHTML === fresh.innerHTML) {
      return;
    }
    fresh.querySelectorAll("details[id]").forEach((details) => {
      const old = document.getElementById(details.id);
      if (old !== null) {
        details.open = old.open;
      }
    });
    const path = part.contains(document.activeElement) ? address(document.activeElement) : null;
    part.replaceChildren(...document.adoptNode(fresh).childNodes);
    if (path !== null) {
      part.querySelector(path)?.focus({ preventScroll: true });
    }
  }

  /* How to find the focused link or fold again in the new content. */
  function address(element) {
    const href = element.getAttribute("href");
    if (href !== null) {
      return `a[href="${CSS.escape(href)}"]`;
    }
    const fold = element.closest("details[id]");
    return fold === null ? null : `#${CSS.escape(fold.id)} > summary`;
  }

  document.addEventListener("visibilitychange", () => plan(0));
  plan(1);
});
