/* The viewer: one image as large as the window allows, with words beside it. Arrow keys step, Escape closes. */

const SMALL = 96; // pixels: a picture below is enlarged without smoothing

/* Of a page: step(by) shows another image, closed() puts the focus back. */
function newViewer(step, closed) {
  const stage = make("div", {class: "stage"}), facts = make("p", {class: "facts"});
  const more = make("div", {class: "more"});
  const button = (words, label, act) => {
    const one = make("button", {type: "button", "aria-label": label}, words);
    one.addEventListener("click", act);
    return one;
  };
  const later = button("\u2192", "Next image", () => step(1));
  later.autofocus = true;
  const dialog = make("dialog", {class: "viewer", "aria-label": "Image, enlarged"}, stage,
    make("div", {class: "words"}, facts, more, make("div", {class: "steps"},
      button("\u2190", "Previous image", () => step(-1)), later, button("Close", "Close", () => dialog.close()))));
  dialog.addEventListener("keydown", event => {
    if (event.ctrlKey || event.altKey || event.metaKey || event.target.matches("input, select")) return;
    const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!by) return;
    step(by);
    event.preventDefault();
  });
  dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); }); // beside it
  dialog.addEventListener("close", closed);
  document.body.append(dialog);
  return {
    dialog,
    more,
    show(picture, words) {
      stage.replaceChildren(picture);
      facts.textContent = words;
      if (!dialog.open) dialog.showModal();
    },
  };
}

/* A picture for the viewer. */
function enlarged(address, words) {
  const picture = make("img", {alt: words, src: address, draggable: "false"});
  picture.addEventListener("load", () => {
    picture.classList.toggle("small", Math.max(picture.naturalWidth, picture.naturalHeight) < SMALL);
  });
  return picture;
}
