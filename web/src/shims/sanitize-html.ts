// Replaces the package sanitize-html, which brings its own parsers of HTML and CSS; DOMPurify uses
// the browser's.

export { sanitize as default } from '../sanitize';
