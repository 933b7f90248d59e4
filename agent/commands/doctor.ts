import type { Command } from 'commander';
import { examine } from '../doctor/examine.ts';
import { asItSays, type Finding } from '../doctor/finding.ts';
import { highestExitCode } from '../highest-exit-code.ts';
import type { Colours } from '../output.ts';
import { widthOf } from '../text-width.ts';
import { wrapText } from '../wrap-text.ts';
import type { CommandAnswer, CommandContext, RunCommand } from './command.ts';

/** `failkit doctor`: does everything that the configuration depends on work, and if not, what is to be done? */
export function register(program: Command, run: RunCommand): void {
  program
    .command('doctor')
    .description('check everything that the configuration depends on, and say how to mend it')
    .action((_options: unknown, command: Command) => run(command, examineAll));
}

async function examineAll(context: CommandContext): Promise<CommandAnswer> {
  const findings: Finding[] = [];
  const startedMs = performance.now();
  for await (const finding of examine(context)) {
    findings.push(finding);
    if (performance.now() - startedMs > quietMs) context.output.progress({ title: `${findings.length} checks done…` });
  }
  const { colours, columns } = context.output;
  const shown = folded(findings);
  const width = checkWidthOf(shown, columns);
  return {
    document: { findings },
    lines: [...shown.flatMap((finding) => linesOf(finding, width, columns, colours)), '', sumOf(findings, colours)],
    exitCode: highestExitCode(findings.map(({ exitCode }) => exitCode)),
  };
}

const remedyTitle = 'what to do:';
const quietMs = 2_000;
const machinesShownMax = 8;
const outcomes = ['failed', 'warning', 'skipped', 'ok'] as const;
const outcomeWidth = Math.max(...outcomes.map((outcome) => outcome.length));

/** Of many machines that are well, nobody reads each. */
function folded(findings: readonly Finding[]): readonly Finding[] {
  const well = findings.filter(({ check, outcome }) => outcome === 'ok' && check.startsWith('machine '));
  const [first] = well;
  if (first === undefined || well.length <= machinesShownMax) return findings;
  const all = { ...first, check: 'machines', what: `${well.length} can be read, and are not in use` };
  return findings.flatMap((finding) => (finding === first ? [all] : well.includes(finding) ? [] : [finding]));
}

/** One name of a hundred characters does not push all others to the edge: what has no room stands alone. */
function checkWidthOf(findings: readonly Finding[], columns: number | null): number {
  const most = columns === null ? Number.POSITIVE_INFINITY : Math.floor(columns / checkShare);
  return Math.max(0, ...findings.map(({ check }) => widthOf(check)).filter((width) => width <= most));
}

const checkShare = 3;
/** With less room for the words, they begin below the name of the check. */
const roomMin = 44;
const narrowIndent = '    ';

/** What was found and what to do stand in one column, however wide the terminal is. */
function linesOf(
  { outcome, check, what, fix }: Finding,
  checkWidth: number,
  columns: number | null,
  colours: Colours,
): readonly string[] {
  const wideIndent = ' '.repeat(outcomeWidth + checkWidth + 4);
  const isNarrow = columns !== null && columns - wideIndent.length < roomMin;
  const indent = isNarrow ? narrowIndent : wideIndent;
  const room = columns === null ? null : columns - indent.length;
  const standsAlone = isNarrow || widthOf(check) > checkWidth;
  const name = standsAlone ? check : check + ' '.repeat(checkWidth - widthOf(check));
  const head = `${paint(outcome, colours)(isNarrow ? outcome : outcome.padEnd(outcomeWidth))}  ${name}`;
  const shown = wrapText(what, room).map((line) => (outcome === 'skipped' ? colours.dim(line) : line));
  const remedy = fix === null || fix === asItSays ? [] : wrapText(`${remedyTitle} ${fix}`, room);
  return [
    ...(standsAlone ? [head] : []),
    ...shown.map((line, index) => (index === 0 && !standsAlone ? `${head}  ` : indent) + line),
    ...remedy.map((line) => indent + line.replace(remedyTitle, colours.bold(remedyTitle))),
  ];
}

function sumOf(findings: readonly Finding[], colours: Colours): string {
  return outcomes
    .map((outcome) => ({ outcome, number: findings.filter((finding) => finding.outcome === outcome).length }))
    .filter(({ number }) => number > 0)
    .map(({ outcome, number }) =>
      paint(outcome, colours)(`${number} ${outcome}${outcome === 'warning' && number > 1 ? 's' : ''}`),
    )
    .join(', ');
}

function paint(outcome: Finding['outcome'], { dim, green, red, yellow }: Colours): (text: string) => string {
  return { ok: green, warning: yellow, failed: red, skipped: dim }[outcome];
}
