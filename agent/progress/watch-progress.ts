import type { Output } from '../output.ts';
import type { Progress } from './progress.ts';

const redrawEveryMs = 200;

/** Shows how far it is until it is disposed of. */
export function watchProgress(output: Output, report: (nowMs: number) => Progress): Disposable {
  const show = (): void => output.progress(report(performance.now()));
  show();
  const timer = setInterval(show, redrawEveryMs);
  return { [Symbol.dispose]: () => clearInterval(timer) };
}
