// libheif, which the worker loads with the first HEIC that the browser cannot decode.

export { default } from 'libheif-js/libheif-wasm/libheif.js';
