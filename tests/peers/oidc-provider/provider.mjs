// A certified OpenID provider as a test peer: node provider.mjs '{"certificate":"…","key":"…","redirect_uris":[…]}'
//
// Owns its two loopback ports: the provider's own (TLS) and a control port for the tests. Prints one JSON line when
// both serve, and ends when its standard input closes, so that no test run leaves it behind.
import { readFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';

import { exportJWK, generateKeyPair } from 'jose';
import { Provider, interactionPolicy } from 'oidc-provider';

import { clients, registerGrants } from './grants.mjs';

const settings = JSON.parse(process.argv[2]);
const users = {
  alice: { name: 'Alice', email: 'alice@example.test', groups: ['eng', 'oncall', 'billing-admins'] },
  bob: { name: 'Bob', email: 'bob@example.test', groups: ['sales'] },
};

const counts = { discovery: 0, jwks: 0, authorize: 0, token: 0, refresh: 0, logout: 0 };
let idTokenSeconds = settings.id_token_seconds ?? 300;
let generation = 0;
// Parameters of the latest authorization request.
let asked = {};
let handler;

// A user who signed in more weakly than a client asks signs in again; `acr_values` alone would be a mere wish.
function policy() {
  const prompts = interactionPolicy.base();
  const { Check } = interactionPolicy;
  const isWeak = ({ oidc }) => {
    const wanted = oidc.params.acr_values?.split(' ');
    const weak = wanted !== undefined && !wanted.includes(oidc.acr) && !oidc.result?.login;
    return weak ? Check.REQUEST_PROMPT : Check.NO_NEED_TO_PROMPT;
  };
  prompts.get('login').checks.add(new Check('weak_authentication', 'a stronger sign-in is asked for', isWeak));
  return prompts;
}

// The provider reads its keys once, so new keys need a new provider; sessions and grants are in storage that all
// providers of this process share.
async function buildProvider(issuer) {
  generation += 1;
  const keys = [];
  for (const alg of ['RS256', 'ES256']) {
    const { privateKey } = await generateKeyPair(alg, { extractable: true });
    keys.push({ ...(await exportJWK(privateKey)), alg, use: 'sig', kid: `${alg}-${generation}` });
  }
  const provider = new Provider(issuer, {
    jwks: { keys },
    clients: [
      {
        client_id: 'doorward',
        client_secret: 'doorward-secret',
        redirect_uris: settings.redirect_uris ?? [],
        post_logout_redirect_uris: settings.post_logout_redirect_uris ?? [],
        grant_types: ['authorization_code', 'refresh_token'],
        response_types: ['code'],
        require_auth_time: true,
      },
      {
        client_id: 'service',
        client_secret: 'service-secret',
        redirect_uris: [],
        response_types: [],
        grant_types: ['client_credentials'],
      },
      ...clients(settings.trusted),
    ],
    // Without the library's guard against addresses of this machine: everything here is on it.
    fetch: (url, { dispatcher, ...options }) => fetch(url, options),
    pkce: { required: () => true },
    scopes: ['openid', 'offline_access', 'profile', 'email', 'groups'],
    claims: { openid: ['sub', 'groups'], email: ['email', 'email_verified'], profile: ['name'] },
    acrValues: ['urn:test:password', 'urn:test:mfa'],
    interactions: { policy: policy() },
    conformIdTokenClaims: false,
    findAccount: (context, id) =>
      users[id] && { accountId: id, claims: () => ({ sub: id, email_verified: true, ...users[id] }) },
    // OpenID Connect Core 11 drops `offline_access` where nobody was asked for consent; many providers give a refresh
    // token all the same, and so does this one.
    issueRefreshToken: (context, client) => client.grantTypeAllowed('refresh_token'),
    // A trusted first-party client: nobody is asked for consent.
    loadExistingGrant: async (context) => {
      const { client, session, params } = context.oidc;
      const grant = new context.oidc.provider.Grant({ clientId: client.clientId, accountId: session.accountId });
      grant.addOIDCScope(params.scope);
      await grant.save();
      return grant;
    },
    rotateRefreshToken: true,
    ttl: {
      AccessToken: 60,
      ClientCredentials: 300,
      Grant: 3600,
      IdToken: () => idTokenSeconds,
      Interaction: 600,
      RefreshToken: 3600,
      Session: 3600,
    },
    cookies: { keys: ['only for tests'] },
    features: {
      devInteractions: { enabled: true },
      clientCredentials: { enabled: true },
      rpInitiatedLogout: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        useGrantedResource: () => true,
        // `…#` is no resource, so the algorithm is the last segment: `https://gate.test/rs256`.
        getResourceServerInfo: (context, resource) => ({
          scope: 'api:read api:write',
          audience: new URL(resource).origin,
          accessTokenTTL: 300,
          accessTokenFormat: 'jwt',
          jwt: { sign: { alg: resource.endsWith('/rs256') ? 'RS256' : 'ES256' } },
        }),
      },
    },
    extraTokenClaims: (context, token) =>
      token.extra ?? (token.accountId ? { groups: users[token.accountId]?.groups } : undefined),
  });
  // The login page of the provider knows one strength; here the user is as strong as was asked for.
  const finish = provider.interactionFinished.bind(provider);
  provider.interactionFinished = async (request, response, result, options) => {
    if (result.login) {
      const { params } = await provider.interactionDetails(request, response);
      result.login.acr = params.acr_values?.split(' ')[0] ?? 'urn:test:password';
    }
    return finish(request, response, result, options);
  };
  provider.on('server_error', (context, error) => console.error('server_error', error));
  provider.on('grant.success', (context) => {
    counts.token += 1;
    counts.refresh += context.oidc.params.grant_type === 'refresh_token' ? 1 : 0;
  });
  provider.on('grant.error', (context, error) => console.error('grant.error', error.error, error.error_detail));
  const publicKeys = { keys: keys.map(({ d, p, q, dp, dq, qi, ...publicKey }) => publicKey) };
  registerGrants(provider, issuer, settings.trusted, publicKeys);
  const callback = provider.callback();
  handler = (request, response) => {
    const endpoint = {
      '/.well-known/openid-configuration': 'discovery',
      '/jwks': 'jwks',
      '/auth': 'authorize',
      '/session/end': 'logout',
    }[request.url.split('?')[0]];
    if (endpoint) counts[endpoint] += 1;
    if (endpoint === 'authorize' && request.url.includes('?')) {
      asked = Object.fromEntries(new URL(request.url, issuer).searchParams);
    }
    callback(request, response);
  };
}

const listen = (server, port) =>
  new Promise((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, '127.0.0.1', () => resolve(server.address().port));
  });

const provider = createTlsServer(
  { cert: readFileSync(settings.certificate), key: readFileSync(settings.key) },
  (request, response) => handler(request, response),
);
const port = await listen(provider, 0);
const issuer = `https://127.0.0.1:${port}`;
await buildProvider(issuer);

// An outage is a real one: nobody listens, and open connections end.
async function setOutage(outage) {
  if (outage && provider.listening) {
    const closed = new Promise((resolve) => provider.close(resolve));
    provider.closeAllConnections();
    await closed;
  }
  if (!outage && !provider.listening) await listen(provider, port);
}

const commands = {
  '/counts': () => counts,
  '/asked': () => asked,
  '/rotate': () => buildProvider(issuer),
  '/outage/begin': () => setOutage(true),
  '/outage/end': () => setOutage(false),
  '/id-token-seconds': (value) => (idTokenSeconds = Number(value)),
};
const control = createHttpServer(async (request, response) => {
  const { pathname, searchParams } = new URL(request.url, 'http://control');
  const command = commands[pathname];
  const answer = command ? await command(searchParams.get('value')) : undefined;
  response.writeHead(command ? 200 : 404, { 'content-type': 'application/json' });
  response.end(JSON.stringify(answer ?? {}));
});
const controlPort = await listen(control, 0);

process.stdin.on('end', () => process.exit(0)).resume();
console.log(JSON.stringify({ issuer, control: `127.0.0.1:${controlPort}` }));
