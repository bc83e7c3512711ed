// a table that is wider than the page is scrolled with the keyboard, too
new MutationObserver(() => document.querySelectorAll(".md-typeset__scrollwrap").forEach((table) => (table.tabIndex = 0)))
  .observe(document.documentElement, {childList: true, subtree: true});
