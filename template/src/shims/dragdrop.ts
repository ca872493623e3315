// Stands in for @lumino/dragdrop: the tabs of a page stay where they are.

export const Drag = undefined;
