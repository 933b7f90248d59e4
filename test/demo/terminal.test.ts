import { expect, it } from 'vitest';
import { darkTheme, drawSvg } from '../../demo/screens/draw-svg.ts';
import { Terminal } from '../../demo/screens/terminal.ts';

function shows(text: string, columns = 20): string {
  const terminal = new Terminal(columns);
  terminal.write(text);
  return terminal.text;
}

it('rewrites what is rewritten, over several rows', () => {
  expect(shows('first\r\nsecond\x1b[1A\r\x1b[Jdone\r\n')).toBe('done');
  expect(shows('ten per cent\r\x1b[2Khalf')).toBe('half');
});

it('goes on in the next row at its edge, and never halves a wide character', () => {
  expect(shows('abcdef', 4)).toBe('abcd\nef');
  expect(shows('abc会d', 4)).toBe('abc\n会d');
});

it('keeps colours, and draws them with every column in its place', () => {
  const terminal = new Terminal(40);
  terminal.write('\x1b[32mok\x1b[39m  \x1b[1mweb <1>\x1b[22m   12 GiB');
  const picture = drawSvg(terminal.rows, { columns: 40, title: 'a & b', theme: darkTheme });
  expect(picture).toContain(`fill="${darkTheme.colours[2]}">ok</text>`);
  expect(picture).toContain('font-weight="bold">web &lt;1&gt;</text>');
  expect(picture).toContain('<title>a &amp; b</title>');
  expect(picture).toMatch(/<text x="133\.6" .*>12 GiB<\/text>/);
});
