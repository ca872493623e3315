// Stands in for @lumino/widgets: of its docks, menus and palettes the controls of a page need none.

export { Layout } from '@lumino/widgets/src/layout';
export { Panel } from '@lumino/widgets/src/panel';
export { PanelLayout } from '@lumino/widgets/src/panellayout';
export { TabBar } from '@lumino/widgets/src/tabbar';
export { Title } from '@lumino/widgets/src/title';
export { Widget } from '@lumino/widgets/src/widget';
