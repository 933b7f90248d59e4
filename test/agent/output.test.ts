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

  it('rewrites progress in place on a terminal, within its width, and clears it before other lines', () => {
    const { output, err, out } = outputOn({ tty: true, environment: { NO_COLOR: '1' } });
    output.progress({ title: 'first' });
    output.progress({ title: 'web', share: 0.2, details: ['1 MiB sent', '2 MiB zero'] });
    output.progress({ title: 'twenty per cent of the disk' });
    output.note('half');
    output.answer({}, ['done']);
    const drawn = ['first', '\r\x1b[Jweb   20 %\n  1 MiB sent', '\x1b[1A\r\x1b[Jtwenty per cent of…', '\r\x1b[Jhalf\n'];
    expect(err()).toBe(drawn.join(''));
    expect(out()).toBe('done\n');
  });

  it('prints progress where nobody watches after ten seconds, and ever more rarely', () => {
    const { output, clock, err } = outputOn({});
    for (let atMs = 0; atMs <= 10 * 3_600_000; atMs += 200) {
      clock.nowMs = atMs;
      output.progress({ title: `${atMs}`, share: 0.5, facts: ['5 MiB'], details: ['1 MiB sent'] });
    }
    const lines = err().split('\n').slice(0, -1);
    expect(lines.slice(0, 3)).toEqual([10_000, 20_000, 30_000].map((atMs) => `${atMs}  50 %, 5 MiB, 1 MiB sent`));
    expect(lines.length).toBeLessThan(120);
    expect(Number.parseInt(lines.at(-1) ?? '', 10)).toBeGreaterThan(10 * 3_600_000 - 600_001);
  });

  it('breaks lines that are wider than the terminal between words, and goes on a little further in', () => {
    const { output, out } = outputOn({ tty: true });
    output.answer({}, [
      'short',
      '  a line that is much too long for it',
      '\x1b[2m  dim words that are much too long\x1b[22m',
    ]);
    expect(out().split('\n')).toEqual([
      'short',
      ...['  a line that is much too long', '    for it'],
      ...['  \x1b[2mdim words that are much too', '    long\x1b[22m', ''],
    ]);
  });

  it('a short run says nothing of its progress where nobody watches, nor does a dumb terminal get to rewrite', () => {
    for (const options of [{}, { tty: true, environment: { TERM: 'dumb' } }]) {
      const { output, err } = outputOn(options);
      output.progress({ title: 'begun' });
      output.answer({}, ['done']);
      expect(err()).toBe('');
    }
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
      ['会計-1', '9 B', 'late'],
    ];
    expect(formatTable(columns, rows)).toEqual([
      'machine       size  state',
      'web-1      8.0 GiB  \x1b[32mok\x1b[39m',
      'dätenbank  1.5 TiB  partial',
      '会計-1         9 B  late',
    ]);
  });

  it('gives up columns where there is no room, and cuts names last', () => {
    const columns = [
      { title: 'machine', cut: true },
      { title: 'RPO', align: 'right', spare: 1 },
      { title: 'stored', align: 'right', spare: 2 },
      { title: 'point', align: 'right' },
    ] as const;
    const rows = [['a-machine-with-a-long-name', '4 h', '12 GiB', '7']];
    const at = (room: number | null) => formatTable(columns, rows, room);
    expect(at(null)).toEqual(at(48));
    expect(at(46)[1]).toBe('a-machine-with-a-long-name  4 h  12 GiB      7');
    expect(at(45)[1]).toBe('a-machine-with-a-long-name  4 h      7');
    expect(at(33)[1]).toBe('a-machine-with-a-long-name      7');
    expect(at(25)).toEqual(['machine             point', 'a-machine-with-a-…      7']);
    expect(at(5)[1]).toBe('a-machine…      7');
  });

  it('leaves missing cells empty and no blanks at the end', () => {
    expect(formatTable([{ title: 'a' }, { title: 'long title' }], [['1'], []])).toEqual(['a  long title', '1', '']);
  });
});
