// Stands in for nouislider: sliders are not among the widgets of this page.

export default undefined;
