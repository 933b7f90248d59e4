import { defineConfig } from 'vitest/config';
import { LongestFirst } from './test/lanes/longest-first.ts';
import { TallyReporter } from './test/lanes/tally-reporter.ts';

const slow = ['test/**/*.slow.test.ts', 'test/**/*.peer.test.ts'];
/** They compare times: nothing else runs meanwhile. */
const alone = ['test/bench/*.peer.test.ts', 'test/end-to-end/changed-limits.peer.test.ts'];
const shared = {
  setupFiles: ['test/canary-setup.ts', 'test/new-directory-setup.ts'],
  pool: 'forks' as const,
  execArgv: ['--disable-warning=ExperimentalWarning'],
};

export default defineConfig({
  test: {
    globalSetup: ['test/canary-sweep.ts', 'test/temporary-folder.ts', 'test/build-agent.ts'],
    reporters: ['default', new TallyReporter()],
    maxWorkers: 2,
    sequence: { sequencer: LongestFirst },
    // Console output goes straight to the process's own streams, where it is recorded for the canary check.
    disableConsoleIntercept: true,
    projects: [
      {
        test: {
          ...shared,
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: slow,
          // A fresh process for each of so many small files would cost a third of the quick lane.
          isolate: false,
          // A guard against hanging, not a measure of speed: these machines may be busy.
          testTimeout: 90_000,
          hookTimeout: 90_000,
        },
      },
      {
        test: {
          ...shared,
          name: 'full',
          include: slow,
          exclude: alone,
          testTimeout: 1_200_000,
          hookTimeout: 600_000,
        },
      },
      {
        test: {
          ...shared,
          name: 'alone',
          include: alone,
          // Groups run one after the other, and the files of this one, too.
          sequence: { groupOrder: 1 },
          maxWorkers: 1,
          testTimeout: 1_200_000,
          hookTimeout: 1_200_000,
        },
      },
    ],
  },
});
