import { stripVTControlCharacters } from 'node:util';

/** How many columns of a terminal a text takes. */

const segmenter = new Intl.Segmenter();
/** Terminals draw these two columns wide: CJK, its punctuation, full-width forms, emoji. */
const wide =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\u3000-\u303f\uff01-\uff60\uffe0-\uffe6]|\p{Emoji_Presentation}/u;

export function widthOf(text: string): number {
  let width = 0;
  for (const { segment } of segmenter.segment(stripVTControlCharacters(text))) width += widthOfOne(segment);
  return width;
}

/** The text without its colours, and with an ellipsis at its end, where it is wider than that. */
export function cutText(text: string, columns: number): string {
  if (widthOf(text) <= columns) return text;
  let kept = '';
  let width = 0;
  for (const { segment } of segmenter.segment(stripVTControlCharacters(text))) {
    width += widthOfOne(segment);
    if (width > columns - 1) break;
    kept += segment;
  }
  return `${kept}…`;
}

function widthOfOne(character: string): number {
  return wide.test(character) ? 2 : 1;
}
