// libheif, for browsers that cannot decode a HEIC themselves; loaded only then.

export { default } from 'libheif-js/libheif-wasm/libheif.js';
