// What a credential can be asked for: token exchange (RFC 8693) with `act`, and assertions for tokens (RFC 7523).
import { createLocalJWKSet, jwtVerify } from 'jose';
import { errors } from 'oidc-provider';

const EXCHANGE = 'urn:ietf:params:oauth:grant-type:token-exchange';
const ASSERTION = 'urn:ietf:params:oauth:grant-type:jwt-bearer';
const ACCESS_TOKEN = 'urn:ietf:params:oauth:token-type:access_token';
const JWT = 'urn:ietf:params:oauth:token-type:jwt';

// One client for each way of showing that it is the one.
export const clients = (trusted) =>
  [
    { client_id: 'by:basic', client_secret: 'se cret+%/', token_endpoint_auth_method: 'client_secret_basic' },
    { client_id: 'by-post', client_secret: 'secret', token_endpoint_auth_method: 'client_secret_post' },
    trusted && {
      client_id: 'by-key',
      token_endpoint_auth_method: 'private_key_jwt',
      token_endpoint_auth_signing_alg: 'RS256',
      jwks_uri: `${trusted}/jwks.json`,
    },
  ]
    .filter(Boolean)
    .map((client) => ({
      ...client,
      redirect_uris: [],
      response_types: [],
      grant_types: ['client_credentials', EXCHANGE, ASSERTION],
    }));

export function registerGrants(provider, issuer, trusted, publicKeys) {
  const own = createLocalJWKSet(publicKeys);
  // The tokens of the issuer that the tests trust, read where it says.
  async function keysOfTrusted() {
    const discovery = await (await fetch(`${trusted}/.well-known/openid-configuration`)).json();
    return createLocalJWKSet(await (await fetch(discovery.jwks_uri)).json());
  }
  async function verified(token, name) {
    const stated = JSON.parse(Buffer.from(token?.split('.')[1] ?? '', 'base64url').toString() || '{}').iss;
    try {
      const ours = stated === issuer;
      const keys = ours ? own : await keysOfTrusted();
      const rules = ours ? { issuer } : { issuer: trusted, audience: `${issuer}/token`, maxTokenAge: '10m' };
      return (await jwtVerify(token, keys, rules)).payload;
    } catch (error) {
      throw new errors.InvalidGrant(`${name} rejected: ${error.code ?? error.message}`);
    }
  }
  async function issue(context, subject, target, extra) {
    const { client, params } = context.oidc;
    const token = new provider.AccessToken({ accountId: subject, client, scope: params.scope, gty: 'other' });
    token.resourceServer = new provider.ResourceServer(target, {
      scope: 'api:read api:write',
      audience: target,
      accessTokenFormat: 'jwt',
      jwt: { sign: { alg: 'ES256' } },
    });
    token.extra = extra;
    return { access_token: await token.save(), token_type: 'Bearer', expires_in: token.expiration };
  }

  provider.registerGrantType(
    EXCHANGE,
    async (context) => {
      const { params } = context.oidc;
      if (![ACCESS_TOKEN, JWT].includes(params.subject_token_type)) {
        throw new errors.InvalidRequest('subject_token_type');
      }
      const subject = await verified(params.subject_token, 'subject_token');
      const target = params.audience ?? params.resource;
      if (!target) throw new errors.InvalidTarget('audience or resource required');
      let act = subject.act;
      if (params.actor_token) {
        const actor = await verified(params.actor_token, 'actor_token');
        act = { sub: actor.sub, ...(act ? { act } : {}) };
      }
      const issued = await issue(context, subject.sub, target, act ? { act } : {});
      context.body = { ...issued, issued_token_type: ACCESS_TOKEN, scope: params.scope };
    },
    ['subject_token', 'subject_token_type', 'actor_token', 'actor_token_type', 'audience', 'resource', 'scope', 'requested_token_type'],
  );
  provider.registerGrantType(
    ASSERTION,
    async (context) => {
      const { sub } = await verified(context.oidc.params.assertion, 'assertion');
      context.body = await issue(context, sub, 'https://archive.test', {});
    },
    ['assertion', 'scope'],
  );
}
