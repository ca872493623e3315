// Replaces @lumino/widgets, without its docks, menus and palettes, which no widget here needs.

export { Layout } from '@lumino/widgets/src/layout';
export { Panel } from '@lumino/widgets/src/panel';
export { PanelLayout } from '@lumino/widgets/src/panellayout';
export { TabBar } from '@lumino/widgets/src/tabbar';
export { Title } from '@lumino/widgets/src/title';
export { Widget } from '@lumino/widgets/src/widget';
