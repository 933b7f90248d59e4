import { writeFileSync } from 'node:fs';
import type { Reporter, TestCase, TestModule, Vitest } from 'vitest/node';
import { type Skip, stubWords, type Tally } from './tally.ts';

const reasonWord = /\bneeds\b/;

/** Counts for the last line of `npm test`, and every skip with its reason. A skip that gives none is a failure. */
export class TallyReporter implements Reporter {
  #filtered = false;

  onInit(vitest: Vitest): void {
    this.#filtered = vitest.config.testNamePattern !== undefined;
  }

  onTestRunEnd(modules: readonly TestModule[], unhandled: readonly unknown[]): void {
    const tests = modules.flatMap((module) => [...module.children.allTests()]);
    const skips = tests.filter((test) => test.result().state === 'skipped').map(describeSkip);
    // With `-t` every other test is skipped, and need not say why.
    const silent = this.#filtered ? [] : skips.filter((skip) => !reasonWord.test(skip.reason));
    const passed = tests.filter((test) => test.result().state === 'passed');
    const tally: Tally = {
      passed: passed.length,
      stubbed: passed.map(nameOf).filter((name) => name.includes(stubWords)),
      failed:
        tests.filter((test) => test.result().state === 'failed').length +
        brokenSuites(modules) +
        silent.length +
        unhandled.length,
      skipped: skips.filter((skip) => !silent.includes(skip)),
    };
    for (const skip of silent) process.stdout.write(`skipped without saying what it needs: ${skip.name}\n`);
    if (silent.length > 0) process.exitCode = 1;
    const tallyFile = process.env.FAILKIT_TALLY_FILE;
    if (tallyFile !== undefined) writeFileSync(tallyFile, JSON.stringify(tally));
    else if (!this.#filtered)
      for (const skip of tally.skipped) process.stdout.write(`skipped: ${skip.name}: ${skip.reason}\n`);
  }
}

/** Files that never got as far as their tests, and suites whose hooks threw. */
function brokenSuites(modules: readonly TestModule[]): number {
  const suites = modules.flatMap((module) => [...module.children.allSuites()]);
  return [...modules, ...suites].reduce((total, suite) => total + suite.errors().length, 0);
}

function describeSkip(test: TestCase): Skip {
  const result = test.result();
  const note = result.state === 'skipped' ? result.note : undefined;
  return { name: nameOf(test), reason: note ?? needsInName(test.fullName) };
}

function nameOf(test: TestCase): string {
  return `${test.module.relativeModuleId} > ${test.fullName}`;
}

/** `describe.skipIf(…)('… (needs X)')` has no note: the reason stands in the name. */
function needsInName(fullName: string): string {
  return /\bneeds\b[^()>]*/.exec(fullName)?.[0].trim() ?? '';
}
