/** The image contradicts its format: what it holds can't be told for sure. */
export class ImageCorrupt extends Error {
  readonly code = 'IMAGE_CORRUPT';
  override readonly name = 'ImageCorrupt';
}
/** The image is sound, or may be, and uses something that is not read here. */
export class ImageUnsupported extends Error {
  readonly code = 'IMAGE_UNSUPPORTED';
  override readonly name = 'ImageUnsupported';
}
/** The image was laid over another one, which is not where it should be. */
export class ParentMissing extends Error {
  readonly code = 'IMAGE_PARENT_MISSING';
  override readonly name = 'ParentMissing';
}
/** There is a file in the parent's place, and it is not what the image was laid over: it was changed or exchanged since. */
export class ParentMismatch extends Error {
  readonly code = 'IMAGE_PARENT_MISMATCH';
  override readonly name = 'ParentMismatch';
}
