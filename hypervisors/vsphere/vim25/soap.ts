import type { Element } from '@xmldom/xmldom';
import { type FaultDetail, VsphereAnswerInvalid } from '../vsphere-errors.ts';
import {
  childOf,
  childrenOf,
  childText,
  isOfVim,
  parseSoapXml,
  type Reference,
  referenceTag,
  tag,
  typeOf,
  type Xml,
} from './soap-xml.ts';

/** SOAP 1.1 around a call of vim25. https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/ */

const soapNamespace = 'http://schemas.xmlsoap.org/soap/envelope/';
const wordsCharsMax = 500;

/** `parameters`: in the order of the WSDL. */
export function requestOf(method: string, self: Reference, parameters: readonly Xml[]): string {
  const call = tag(method, [referenceTag('_this', self), ...parameters], { xmlns: 'urn:vim25' });
  const envelope = tag('soapenv:Envelope', [tag('soapenv:Body', [call])], {
    'xmlns:soapenv': soapNamespace,
    'xmlns:xsi': 'http://www.w3.org/2001/XMLSchema-instance',
    'xmlns:xsd': 'http://www.w3.org/2001/XMLSchema',
  });
  return `<?xml version="1.0" encoding="UTF-8"?>\n${envelope}`;
}

export type SoapAnswer =
  | { readonly kind: 'answer'; readonly response: Element }
  | { readonly kind: 'fault'; readonly detail: FaultDetail };

/** Throws VsphereAnswerInvalid for what is neither the answer to this method nor a fault. */
export function readAnswer(text: string, method: string, where: string): SoapAnswer {
  const what = `${where}: the answer to ${method}`;
  const envelope = parseSoapXml(text, what);
  const body = childOf(envelope, 'Body');
  if (envelope.localName !== 'Envelope' || envelope.namespaceURI !== soapNamespace || body === null)
    throw new VsphereAnswerInvalid(`${what} is no SOAP envelope with a body`);
  const fault = childOf(body, 'Fault');
  if (fault !== null) return { kind: 'fault', detail: soapFault(fault) };
  const response = childOf(body, `${method}Response`);
  if (response === null || !isOfVim(response))
    throw new VsphereAnswerInvalid(`${what} is ${body.children[0]?.localName ?? 'empty'} and no fault either`);
  return { kind: 'answer', response };
}

function soapFault(fault: Element): FaultDetail {
  const detail = childOf(fault, 'detail')?.children[0] ?? null;
  const words = childText(fault, 'faultstring') ?? '';
  // The element is called after its method's declared fault, and the type may be a narrower one.
  const type = typeOf(detail) ?? detail?.localName?.replace(/Fault$/, '') ?? 'SoapFault';
  return faultDetail(detail, type, words);
}

/** Of a `LocalizedMethodFault`, as a task ends with. */
export function localizedFault(element: Element): FaultDetail {
  const fault = childOf(element, 'fault');
  return faultDetail(fault, typeOf(fault) ?? 'MethodFault', childText(element, 'localizedMessage') ?? '');
}

function faultDetail(fault: Element | null, type: string, words: string): FaultDetail {
  const own = childrenOf(fault, 'faultMessage').flatMap((message) => childText(message, 'message') ?? []);
  return {
    fault: type,
    words: [words, ...own]
      .filter((each) => each.trim() !== '')
      .join('; ')
      .slice(0, wordsCharsMax),
    invalidProperty: childText(fault, 'invalidProperty'),
    file: childText(fault, 'file'),
    privilege: childText(fault, 'privilegeId'),
  };
}

/** What a method that returns one thing returned. */
export function returnedBy(response: Element, where: string): Element {
  const value = childOf(response, 'returnval');
  if (value === null) throw new VsphereAnswerInvalid(`${where}: ${response.localName} holds nothing`);
  return value;
}
