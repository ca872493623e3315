// Replaces @lumino/dragdrop: tabs of this page cannot be dragged.

export const Drag = undefined;
