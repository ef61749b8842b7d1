"""The style of `report.html`: one column, light or dark as the reader's system is, readable on a phone."""

STYLE = """
:root { color-scheme: light dark; --paper: #fff; --card: #f6f7f9; --ink: #1b1f24; --quiet: #59636e; --line: #d8dee4;
  --empty: #e6e9ed; --warn: #fff4e0; --warn-line: #d08700; --s1: #2563c9; --s2: #12876b; --s3: #c9741a;
  --p1: #0f3f8c; --p2: #4b86dd; --p3: #a9c7f2; --p4: #cfdff6; --p5: #dde7f4; --p6: #e6ecf3; }
@media (prefers-color-scheme: dark) { :root { --paper: #0f1216; --card: #191e24; --ink: #e8ebee; --quiet: #9aa5b1;
  --line: #323a44; --empty: #2a313a; --warn: #2e2413; --warn-line: #d9992b; --s1: #6ea3f5; --s2: #3fbd99;
  --s3: #e8994d; --p1: #8db8fb; --p2: #4a7fce; --p3: #2c4f85; --p4: #26406a; --p5: #223656; --p6: #202d42; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .25rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
p { margin: .5rem 0; overflow-wrap: anywhere; }
.lead, .quiet, small, .label small { color: var(--quiet); }
.quiet { font-size: .875rem; }
small { font-weight: normal; font-size: .875rem; }
code, pre { font: .85em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; overflow-wrap: anywhere; }
pre { white-space: pre-wrap; background: var(--paper); border: 1px solid var(--line); border-radius: 6px;
  padding: .6rem .75rem; margin: .5rem 0; }
.said { unicode-bidi: isolate; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(8rem, 1fr)); gap: .75rem; margin: 1.25rem 0; }
.tiles div { background: var(--card); border-radius: 8px; padding: .75rem 1rem; }
.tiles b { display: block; font-size: 1.5rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.tiles span { color: var(--quiet); font-size: .875rem; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; width: 100%; font-size: .9375rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; vertical-align: top; padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line);
  unicode-bidi: isolate; }
td { min-width: 4rem; } td:first-child { min-width: 7rem; }
th { font-weight: 600; color: var(--quiet); font-size: .8125rem; white-space: nowrap; }
td:last-child, th:last-child { padding-right: 0; }
th.number, td.number { text-align: right; white-space: nowrap; }
.bars { display: grid; gap: .6rem; margin: .75rem 0 1.25rem; }
.row { display: grid; grid-template-columns: 13rem 1fr 6rem; gap: .75rem; align-items: center; }
.row .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.label small { display: block; line-height: 1.3; font-size: .8125rem; }
.bar { display: block; width: 100%; height: 1.1rem; border-radius: 4px; }
.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; font-size: .875rem; margin: .75rem 0; }
.legend span { display: inline-flex; align-items: center; gap: .4rem; }
.dot { width: .75rem; height: .75rem; }
.empty { fill: var(--empty); }
.s1 { fill: var(--s1); } .s2 { fill: var(--s2); } .s3 { fill: var(--s3); }
.p1 { fill: var(--p1); } .p2 { fill: var(--p2); } .p3 { fill: var(--p3); }
.p4 { fill: var(--p4); } .p5 { fill: var(--p5); } .p6 { fill: var(--p6); }
article { background: var(--card); border-radius: 8px; padding: .9rem 1rem; margin: .75rem 0; }
ul { margin: .5rem 0; padding-left: 1.25rem; overflow-wrap: anywhere; font-size: .9375rem; }
ul.plain { list-style: none; padding: 0; } ul.plain li { margin: .3rem 0; }
blockquote { margin: .75rem 0 .5rem; font-size: 1.0625rem; font-weight: 600; white-space: pre-wrap; }
blockquote::before { content: "\\201c"; } blockquote::after { content: "\\201d"; }
dl { margin: .75rem 0; } dt { font-size: .8125rem; font-weight: 600; color: var(--quiet); }
dd { margin: 0 0 .5rem; }
.chip { display: inline-block; border: 1px solid var(--line); border-radius: 1rem; padding: 0 .6rem;
  margin-right: .4rem; font-size: .8125rem; }
.warning { background: var(--warn); border-left: 3px solid var(--warn-line); padding: .5rem .75rem;
  border-radius: 4px; white-space: pre-wrap; }
.film { display: grid; grid-template-columns: repeat(3, 1fr); gap: 4px; }
.film img { width: 100%; height: auto; border-radius: 4px; background: var(--empty); }
.grey { grid-column: 1 / -1; display: grid; place-items: center; height: 5rem; border-radius: 4px;
  background: var(--empty); color: var(--quiet); font-size: .875rem; }
details { margin: .5rem 0; } summary { cursor: pointer; color: var(--quiet); font-size: .875rem; }
details ul { font-size: .8125rem; color: var(--quiet); }
@media (min-width: 48rem) { section > .sample { display: grid; grid-template-columns: 19rem 1fr; column-gap: 1.25rem; }
  .sample > * { grid-column: 2; } .sample > .film { grid-column: 1; grid-row: 1 / span 9; align-self: start; } }
@media (max-width: 36rem) { .row { grid-template-columns: 1fr auto; } .row .label { grid-column: 1; }
  .row .number { grid-column: 2; grid-row: 1; } .row .bar { grid-column: 1 / -1; } }
"""
