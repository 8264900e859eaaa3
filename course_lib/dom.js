// What the modules of `BrowserWidget` build on: it stands before each of them.

// Bytes arrive as a DataView in Jupyter, as a Uint8Array in a page.
function toBytes(bytes) {
  if (!bytes || !bytes.byteLength) return new Uint8Array(0);
  return new Uint8Array(bytes.buffer || bytes, bytes.byteOffset || 0, bytes.byteLength);
}

function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name in node && name !== "role") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

