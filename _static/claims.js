// Filters the table of claims by chapter, kind and state. Without JavaScript, all rows show.
(() => {
  "use strict";
  const add = (parent, name, attributes = {}, text = "") => {
    const made = document.createElement(name);
    Object.entries(attributes).forEach(([key, value]) => made.setAttribute(key, value));
    made.textContent = text;
    parent.append(made);
    return made;
  };

  const build = (table) => {
    const rows = [...table.tBodies[0].rows];
    const form = document.createElement("form");
    form.className = "tw-filter";
    form.setAttribute("autocomplete", "off"); // a page that is loaded again shows all

    // A list of what a column's cells say, each with its count: of one thing, no list.
    const list = (column, name, all) => {
      const says = (row) => row.cells[column].textContent.trim().split(":")[0];
      const counts = new Map();
      rows.forEach((row) => counts.set(says(row), (counts.get(says(row)) ?? 0) + 1));
      if (counts.size < 2) return () => true;
      const label = add(form, "label", {}, name);
      const select = add(label, "select");
      add(select, "option", { value: "" }, all);
      counts.forEach((count, text) => add(select, "option", { value: text }, `${text} (${count})`));
      return (row) => !select.value || says(row) === select.value;
    };

    const filters = [
      list(0, "Chapter", "All chapters"),
      list(3, "Kind", "All kinds"),
      list(4, "State", "All states"),
    ];
    const count = add(form, "p", { role: "status" });
    const show = () => {
      rows.forEach((row) => (row.hidden = !filters.every((filter) => filter(row))));
      const shown = rows.filter((row) => !row.hidden).length;
      count.textContent = `${shown} of ${rows.length} claims`;
    };
    form.addEventListener("change", show);
    form.addEventListener("submit", (event) => event.preventDefault());
    (table.closest(".pst-scrollable-table-container") ?? table).before(form);
    show();
  };

  document.addEventListener("DOMContentLoaded", () => {
    document.querySelectorAll("table.tw-claims").forEach(build);
  });
})();
