// Replaces jQuery, which Backbone and the widgets use only to wrap an element: their views draw and
// listen with the browser's own functions.

class Wrapped {
  readonly length = 1;
  readonly 0: Element;

  constructor(element: Element) {
    this[0] = element;
  }
}

function $(element: Element): Wrapped {
  return new Wrapped(element);
}
$.prototype = Wrapped.prototype;

export default $;
