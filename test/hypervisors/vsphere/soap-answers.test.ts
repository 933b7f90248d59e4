/** Answers in the shapes that real servers have; where they come from no vCenter was at hand, they are written after its documentation. */
import { describe, expect, it } from 'vitest';
import { readAnswer, requestOf } from '../../../hypervisors/vsphere/vim25/soap.ts';
import {
  booleanOf,
  booleanTag,
  childOf,
  integerOf,
  parseSoapXml,
  referenceOf,
  referenceTag,
  roomOf,
  tag,
  textOf,
  typedTag,
  typeOf,
} from '../../../hypervisors/vsphere/vim25/soap-xml.ts';
import { newestCommon, VimSession } from '../../../hypervisors/vsphere/vim25/vim-session.ts';
import { VsphereAnswerInvalid, VsphereRequestInvalid } from '../../../hypervisors/vsphere/vsphere-errors.ts';
import { fixture } from './scripted-vim.ts';

const where = 'vSphere at vc';

describe('what is sent', () => {
  it('has its elements in the order of the WSDL, and every text escaped', () => {
    const machine = { type: 'VirtualMachine', id: 'vm-57' };
    const sent = requestOf('QueryChangedDiskAreas', machine, [
      referenceTag('snapshot', { type: 'VirtualMachineSnapshot', id: 'snapshot-61' }),
      tag('deviceKey', '2000'),
      tag('startOffset', '0'),
      tag('changeId', `<&>"'\n52/1]]>`),
    ]);
    expect(sent).toContain(
      '<QueryChangedDiskAreas xmlns="urn:vim25"><_this type="VirtualMachine">vm-57</_this>' +
        '<snapshot type="VirtualMachineSnapshot">snapshot-61</snapshot><deviceKey>2000</deviceKey>' +
        '<startOffset>0</startOffset><changeId>&lt;&amp;&gt;&quot;&apos;&#10;52/1]]&gt;</changeId></QueryChangedDiskAreas>',
    );
    const read = parseSoapXml(sent, 'it');
    expect(textOf(childOf(read, 'Body', 'QueryChangedDiskAreas', 'changeId'))).toBe(`<&>"'\n52/1]]>`);
  });

  it('names the type where the schema leaves it open', () => {
    expect(typedTag('selectSet', 'TraversalSpec', [booleanTag('skip', false)])).toBe(
      '<selectSet xsi:type="TraversalSpec"><skip>false</skip></selectSet>',
    );
  });

  it('is refused where XML has no way to write it', () => {
    for (const text of ['a\u0000b', '\u001b[0m', '\ud800', '\ufffe'])
      expect(() => tag('a', text)).toThrow(VsphereRequestInvalid);
    expect(tag('a', 'é 🙂')).toBe('<a>é 🙂</a>');
  });
});

describe('what is answered', () => {
  it('is told by namespace: whatever the prefix is called, whichever attribute comes first', () => {
    for (const attributes of [
      'xmlns:xsi="I" type="Task" xsi:type="ManagedObjectReference"',
      'xmlns:_XMLSchema-instance="I" _XMLSchema-instance:type="vim:ManagedObjectReference" type="Task"',
      "xmlns:x='I' x:type = 'ManagedObjectReference'\n type='Task'",
    ]) {
      const element = parseSoapXml(
        `<r ${attributes.replace(/"I"|'I'/, '"http://www.w3.org/2001/XMLSchema-instance"')}>task-7</r>`,
        'it',
      );
      expect(referenceOf(element)).toEqual({ type: 'Task', id: 'task-7' });
      expect(typeOf(element)).toBe('ManagedObjectReference');
    }
  });

  it('stays text until a number is asked for, and a number is never a guess', () => {
    const read = (text: string) => parseSoapXml(`<n>${text}</n>`, 'it');
    for (const text of ['007', '52e10', '0x1F', '1e3', ' 1', '+5', '']) expect(textOf(read(text))).toBe(text);
    expect(integerOf(read('9007199254740991'))).toBe(Number.MAX_SAFE_INTEGER);
    for (const text of ['9007199254740992', '9223372036854775807', '-9223372036854775808', '52e10', '1.0', '0x1F', ''])
      expect(() => integerOf(read(text)), text).toThrow(VsphereAnswerInvalid);
    expect(roomOf(read('9223372036854775807'))).toBe(Number.MAX_SAFE_INTEGER);
    expect(roomOf(read('1023'))).toBe(1023);
    for (const text of ['-1e9', '52e10', '', 'many'])
      expect(() => roomOf(read(text)), text).toThrow(VsphereAnswerInvalid);
    expect([booleanOf(read('1')), booleanOf(read('false'))]).toEqual([true, false]);
    expect(() => booleanOf(read('yes'))).toThrow(VsphereAnswerInvalid);
  });

  it('is refused with a document type, with entities of its own, and cut short', () => {
    const bomb = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><soapenv:Envelope>&b;</soapenv:Envelope>';
    const whole = fixture('service-content.xml');
    const texts = [
      bomb,
      '<!DOCTYPE html><html><body>503</body></html>',
      '<a>&nothing;</a>',
      whole.slice(0, -40),
      '',
      'no XML',
      '<a/><b/>',
      whole.replaceAll('http://schemas.xmlsoap.org/soap/envelope/', 'urn:other'),
      whole.replace('urn:vim25', 'urn:other'),
      whole.replaceAll('RetrieveServiceContentResponse', 'LoginResponse'),
    ];
    for (const text of texts)
      expect(() => readAnswer(text, 'RetrieveServiceContent', where), text.slice(0, 80)).toThrow(VsphereAnswerInvalid);
    expect(readAnswer(whole, 'RetrieveServiceContent', where).kind).toBe('answer');
  });

  it.each([
    ['file-fault.xml', { fault: 'CannotAccessFile', file: '/vmfs/volumes/52e10/web & café/web.vmdk' }],
    ['invalid-argument.xml', { fault: 'InvalidArgument', invalidProperty: 'deviceKey', file: null }],
    ['no-permission.xml', { fault: 'NoPermission', privilege: 'VirtualMachine.State.CreateSnapshot' }],
    ['not-authenticated.xml', { fault: 'NotAuthenticated' }],
  ])('is a fault by its type, with what it is about: %s', (name, detail) => {
    expect(readAnswer(fixture(name), 'QueryChangedDiskAreas', where)).toMatchObject({ kind: 'fault', detail });
  });
});

it('the newest version of the API that both know is spoken', () => {
  expect(newestCommon(['9.0.0.0', '8.0.3.0', '7.0'])).toBe('8.0.3.0');
  expect(newestCommon(['6.7.10', '6.7.9', ' 6.5 '])).toBe('6.7.10');
  expect(newestCommon(['2.5u2', 'none'])).toBe('6.7');
});

it('VimSession says nothing of its password, however it is shown', async () => {
  const settings = { address: { host: 'h', port: 443 }, trust: { thumbprint: null, caFile: null }, proxy: null };
  await using session = new VimSession({ ...settings, user: 'u', password: { reveal: () => 'never-shown' } });
  const { inspect } = await import('node:util');
  expect(inspect(session, { depth: 9, showHidden: true }) + JSON.stringify(session)).not.toContain('never-shown');
});
