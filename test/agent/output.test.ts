import { describe, expect, it } from 'vitest';
import { createOutput } from '../../agent/output.ts';
import { formatTable } from '../../agent/table.ts';

function recordingStream(isTTY = false) {
  const written: string[] = [];
  return { isTTY, columns: 20, written, write: (text: string) => written.push(text) };
}

function outputOn({ tty = false, json = false, environment = {} }) {
  const stdout = recordingStream(tty);
  const stderr = recordingStream(tty);
  const clock = { nowMs: 0 };
  const output = createOutput({ stdout, stderr, json, environment }, () => clock.nowMs);
  return { output, clock, out: () => stdout.written.join(''), err: () => stderr.written.join('') };
}

describe('output for a person', () => {
  it('puts the answer on standard output and all else on standard error', () => {
    const { output, out, err } = outputOn({});
    output.note('reading');
    output.answer({ points: 1 }, ['one point', 'done']);
    expect(out()).toBe('one point\ndone\n');
    expect(err()).toBe('reading\n');
  });

  it('rewrites one progress line on a terminal, cut to its width, and clears it before other lines', () => {
    const { output, err, out } = outputOn({ tty: true });
    output.progress('10 %');
    output.progress('twenty per cent of the disk');
    output.note('half');
    output.answer({}, ['done']);
    expect(err()).toBe('\r\x1b[2K10 %\r\x1b[2Ktwenty per cent of…\r\x1b[2Khalf\n');
    expect(out()).toBe('done\n');
  });

  it('prints progress every ten seconds where nobody watches', () => {
    const { output, clock, err } = outputOn({});
    for (const atMs of [0, 5000, 9999, 10_000, 12_000, 25_000]) {
      clock.nowMs = atMs;
      output.progress(`at ${atMs}`);
    }
    expect(err()).toBe('at 0\nat 10000\nat 25000\n');
  });

  it('has colours on a terminal only, and not where NO_COLOR or a dumb terminal asks for none', () => {
    const red = (options: Parameters<typeof outputOn>[0]) => outputOn(options).output.colours.red('x');
    expect(red({ tty: true })).toBe('\x1b[31mx\x1b[39m');
    expect(red({ tty: false })).toBe('x');
    expect(red({ tty: true, environment: { NO_COLOR: '1' } })).toBe('x');
    expect(red({ tty: true, environment: { NO_COLOR: '' } })).toBe('\x1b[31mx\x1b[39m');
    expect(red({ tty: true, environment: { TERM: 'dumb' } })).toBe('x');
  });
});

describe('output for a program', () => {
  it('is one JSON document on standard output', () => {
    const { output, out, err } = outputOn({ json: true });
    output.note('reading');
    output.answer({ points: [1, 2] }, ['two points']);
    expect(JSON.parse(out())).toEqual({ points: [1, 2] });
    expect(err()).toBe('reading\n');
  });

  it('is one JSON document after a failure too, with the words on standard error', () => {
    const { output, out, err } = outputOn({ json: true });
    output.failure({ error: { code: 'X' } }, () => ['it failed']);
    expect(JSON.parse(out())).toEqual({ error: { code: 'X' } });
    expect(err()).toBe('it failed\n');
  });
});

describe('a table', () => {
  it('aligns its columns by what a person sees', () => {
    const columns = [{ title: 'machine' }, { title: 'size', align: 'right' }, { title: 'state' }] as const;
    const rows = [
      ['web-1', '8.0 GiB', '\x1b[32mok\x1b[39m'],
      ['dätenbank', '1.5 TiB', 'partial'],
    ];
    expect(formatTable(columns, rows)).toEqual([
      'machine       size  state',
      'web-1      8.0 GiB  \x1b[32mok\x1b[39m',
      'dätenbank  1.5 TiB  partial',
    ]);
  });

  it('leaves missing cells empty and no blanks at the end', () => {
    expect(formatTable([{ title: 'a' }, { title: 'long title' }], [['1'], []])).toEqual(['a  long title', '1', '']);
  });
});
