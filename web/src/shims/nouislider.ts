// Replaces nouislider: this page has no sliders.

export default undefined;
