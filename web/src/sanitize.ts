// Clean HTML that comes from the kernel, with DOMPurify. The Content-Security-Policy forbids inline
// scripts as well: two defences, of which one is enough.

import DOMPurify, { type Config } from 'dompurify';

const CONFIG: Config = {
  USE_PROFILES: { html: true, svg: true },
  // What could restyle the page or imitate its controls.
  FORBID_TAGS: ['audio', 'button', 'dialog', 'form', 'input', 'select', 'style', 'textarea', 'video'],
  // An element with a name can hide a property of `document`.
  FORBID_ATTR: ['name'],
  ADD_ATTR: ['target'],
};

const FILE = /^data:(?!text\/html|image\/svg|application\/xhtml|text\/xml)/i;

// A link may carry the file that it saves.
DOMPurify.addHook('uponSanitizeAttribute', (element, attribute) => {
  const { attrName: name, attrValue: value } = attribute;
  if (name === 'href' && element.hasAttribute('download') && FILE.test(value)) {
    attribute.forceKeepAttr = true;
  }
});
DOMPurify.addHook('afterSanitizeAttributes', (element) => {
  if (element.hasAttribute('target')) element.setAttribute('rel', 'noopener noreferrer');
});

/** Return the HTML without anything that could act. */
export const sanitize = (html: string): string => DOMPurify.sanitize(html, CONFIG);
