const rejects = new Map(Object.entries(JSON.parse(document.getElementById("rejects").textContent)));
const known = new Map(rejects), buttons = document.querySelectorAll(".reject"), bar = document.querySelector(".bar");
const shown = new Set(Array.from(buttons, button => button.value));
let unsaved = false;
function count() {
  const elsewhere = [...rejects.keys()].filter(key => !shown.has(key)).length;
  bar.querySelector("output").value = `${rejects.size} image${rejects.size === 1 ? "" : "s"} rejected` +
    (elsewhere ? ` (${elsewhere} not shown here)` : "");
}
for (const button of buttons) {
  button.disabled = false;
  button.onclick = () => {
    const key = button.value, now = !rejects.has(key);
    if (now) rejects.set(key, known.get(key) ?? {key}); else rejects.delete(key);
    button.setAttribute("aria-pressed", now);
    unsaved = true;
    count();
  };
}
bar.querySelector("button").onclick = () => {
  const columns = [...new Set(["key", ...[...rejects.values()].flatMap(Object.keys)])];
  const cell = text => /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  const rows = [...rejects.keys()].sort().map(key => columns.map(name => cell(rejects.get(key)[name] ?? "")).join(","));
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([[columns.join(","), ...rows, ""].join("\n")], {type: "text/csv"}));
  link.download = "rejects.csv";
  link.click();
  unsaved = false;
};
addEventListener("beforeunload", event => { if (unsaved) event.preventDefault(); });
for (const part of document.querySelectorAll(".bar, .scripted")) part.hidden = false;
count();
