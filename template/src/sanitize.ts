// Clean HTML that comes from the kernel: only elements and attributes that show something stay.
// The Content-Security-Policy forbids inline scripts as well; this is the first of two fences.

const ELEMENTS = new Set(
  `a abbr article aside b bdi bdo blockquote br caption cite code col colgroup data dd del details
  dfn div dl dt em figcaption figure footer h1 h2 h3 h4 h5 h6 header hr i img ins kbd li main mark
  meter nav ol p picture pre progress q s samp section small span strong sub summary sup table tbody
  td tfoot th thead time tr u ul var wbr
  svg g path rect circle ellipse line polyline polygon text tspan title desc defs lineargradient
  radialgradient stop`.split(/\s+/),
);

const ATTRIBUTES = new Set(
  `class id title role lang dir style tabindex hidden open
  href download target src alt width height loading decoding
  colspan rowspan scope span start reversed value max min low high optimum datetime cite
  viewbox d fill fill-opacity fill-rule stroke stroke-width stroke-linecap stroke-linejoin
  stroke-dasharray opacity transform points x y x1 y1 x2 y2 r rx ry cx cy dx dy offset stop-color
  stop-opacity text-anchor font-size gradientunits gradienttransform preserveaspectratio
  xmlns`.split(/\s+/),
);

// What goes with its whole content; of other unknown elements the content stays.
const DROPPED = new Set(['script', 'style', 'template', 'iframe', 'object', 'noscript', 'math']);

const PICTURE = /^data:image\/(?:png|jpe?g|gif|webp|avif|svg\+xml)[;,]/i;
const FILE = /^data:(?!text\/html|image\/svg|application\/xhtml|text\/xml)/i;

function allowed(element: Element, name: string, value: string): boolean {
  if (name.startsWith('aria-') || name.startsWith('data-')) return true;
  if (!ATTRIBUTES.has(name)) return false;
  if (name === 'src') return PICTURE.test(value) || isWeb(value, ['http:', 'https:', 'blob:']);
  if (name === 'href') {
    // A file to save may be carried in the address itself.
    if (element.hasAttribute('download') && FILE.test(value.trim())) return true;
    return isWeb(value, ['http:', 'https:', 'mailto:', 'blob:']);
  }
  return true;
}

function isWeb(address: string, protocols: string[]): boolean {
  try {
    return protocols.includes(new URL(address, location.href).protocol);
  } catch {
    return false;
  }
}

function clean(parent: Element | DocumentFragment): void {
  for (const element of Array.from(parent.children)) {
    const name = element.localName.toLowerCase();
    if (DROPPED.has(name)) {
      element.remove();
      continue;
    }
    clean(element);
    if (!ELEMENTS.has(name)) {
      element.replaceWith(...Array.from(element.childNodes));
      continue;
    }
    for (const { name: attribute, value } of Array.from(element.attributes)) {
      if (!allowed(element, attribute.toLowerCase(), value)) element.removeAttribute(attribute);
    }
    if (element.getAttribute('target')) element.setAttribute('rel', 'noopener noreferrer');
  }
}

/** The HTML without anything that could act. */
export function sanitize(html: string): string {
  const body = new DOMParser().parseFromString(html, 'text/html').body;
  clean(body);
  return body.innerHTML;
}
