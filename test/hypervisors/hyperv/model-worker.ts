/** In the place of PowerShell: a process that reads questions and writes answers, from the model in the folder that it is given. */
import { createInterface } from 'node:readline';
import { answerLine } from './model-protocol.ts';
import { loadModel, saveModel } from './model-storage.ts';

const [folder = ''] = process.argv.slice(2);

for await (const line of createInterface({ input: process.stdin })) {
  const model = loadModel(folder);
  model.asked.push((JSON.parse(line) as { op: string }).op);
  const kills = model.killAt > 0 && --model.killAt === 0;
  const answer = kills && !model.happens ? '' : answerLine(model.host, line);
  saveModel(model);
  if (kills) {
    process.kill(process.ppid, 'SIGKILL');
    break;
  }
  process.stdout.write(`${answer}\n`);
}
