// Gives each slider of ipywidgets in the same output the name that its label shows, and
// the value that stands beside it.

function render({ el }) {
  el.hidden = true;
  const name = () => {
    const root = el.closest(".jp-OutputArea-output") || el.parentElement;
    for (const slider of root.querySelectorAll(".widget-slider")) {
      const handle = slider.querySelector("[role=slider]");
      const texts = {
        "aria-label": slider.querySelector(".widget-label")?.textContent,
        "aria-valuetext": slider.querySelector(".widget-readout")?.textContent,
      };
      for (const [attribute, text] of Object.entries(texts))
        if (text && handle && handle.getAttribute(attribute) !== text)
          handle.setAttribute(attribute, text);
    }
  };
  // the sliders may come after this, and each move writes another value
  const watch = new MutationObserver(name);
  const start = requestAnimationFrame(() => {
    const root = el.closest(".jp-OutputArea-output") || el.parentElement;
    watch.observe(root, { subtree: true, childList: true, characterData: true,
      attributes: true, attributeFilter: ["aria-valuetext"] });
    name();
  });
  return () => {
    cancelAnimationFrame(start);
    watch.disconnect();
  };
}

export default { render };
