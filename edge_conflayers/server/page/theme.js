// Sets light or dark, if the user has chosen, before anything is drawn: it would flash otherwise.
"use strict";
{
  const name = "edge-conflayers.theme";
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const root = document.documentElement;

  let chosen = null;
  try {
    chosen = localStorage.getItem(name);
  } catch { /* storage is switched off: the choice lasts for this page */ }
  if (chosen === "light" || chosen === "dark") root.dataset.theme = chosen;

  // The system's own choice is not kept, so that the page goes on following the system.
  const toggle = () => {
    const now = root.dataset.theme ?? (dark.matches ? "dark" : "light");
    const wanted = now === "dark" ? "light" : "dark";
    const asSystem = (wanted === "dark") === dark.matches;
    if (asSystem) delete root.dataset.theme;
    else root.dataset.theme = wanted;
    try {
      if (asSystem) localStorage.removeItem(name);
      else localStorage.setItem(name, wanted);
    } catch { /* see above */ }
  };
  addEventListener("DOMContentLoaded", () => {
    document.getElementById("theme").addEventListener("click", toggle);
  });
}
