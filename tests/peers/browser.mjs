// Headless Chromium as a test peer: one JSON command a line on standard input, one JSON answer a line on standard
// output. Start: node browser.mjs '{"hosts":{"gate.test":41234}}': each host's HTTPS goes to that loopback port.
//
// Ends when its standard input closes.
import { createInterface } from 'node:readline';

import { chromium } from 'playwright-core';

const { hosts } = JSON.parse(process.argv[2]);
const mapped = Object.entries(hosts).map(([host, port]) => `MAP ${host}:443 127.0.0.1:${port}`);
const browser = await chromium.launch({
  executablePath: '/usr/bin/chromium',
  headless: true,
  args: [
    '--no-sandbox',
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    '--ignore-certificate-errors',
    // Nothing but loopback is ever looked up.
    `--host-resolver-rules=${[...mapped, 'MAP * ~NOTFOUND', 'EXCLUDE 127.0.0.1', 'EXCLUDE localhost'].join(', ')}`,
  ],
});
const context = await browser.newContext({ ignoreHTTPSErrors: true });
context.setDefaultTimeout(30_000);
// Tabs by name, so that several logins can be under way at once.
const tabs = new Map();
// The last document's status in each tab, redirects followed.
const statuses = new Map();
// Every address that a tab was sent to, in order.
const visited = [];

async function tab(name = 'first') {
  if (!tabs.has(name)) {
    const page = await context.newPage();
    page.on('request', (request) => {
      if (request.frame() === page.mainFrame() && request.isNavigationRequest()) visited.push(request.url());
    });
    page.on('response', (response) => {
      const main = response.frame() === page.mainFrame() && response.request().isNavigationRequest();
      if (main && (response.status() < 300 || response.status() >= 400)) statuses.set(name, response.status());
    });
    tabs.set(name, page);
  }
  return tabs.get(name);
}

const place = async (page, name) => ({ url: page.url(), title: await page.title(), status: statuses.get(name) });

const steps = {
  async goto(page, { url, tab: name = 'first' }) {
    await page.goto(url, { waitUntil: 'load' });
    return place(page, name);
  },
  async fill(page, { selector, text }) {
    await page.fill(selector, text);
  },
  // Clicks, and waits for the page that the click leads to.
  async follow(page, { selector, tab: name = 'first' }) {
    await Promise.all([page.waitForNavigation({ waitUntil: 'load' }), page.click(selector)]);
    return place(page, name);
  },
  async place(page, { tab: name = 'first' }) {
    return place(page, name);
  },
  async visited() {
    return visited;
  },
  async text(page, { selector = 'body' }) {
    return page.innerText(selector);
  },
  async html(page) {
    return page.content();
  },
  async screenshot(page, { path }) {
    await page.screenshot({ path, fullPage: true });
  },
  async cookies() {
    return context.cookies();
  },
  async clear_cookies() {
    await context.clearCookies();
  },
  async evaluate(page, { script }) {
    return page.evaluate(script);
  },
  // A request by the page's own script, with the page's cookies.
  async fetch(page, { url, options }) {
    return page.evaluate(
      async ([target, init]) => {
        try {
          const answer = await fetch(target, init);
          return { status: answer.status, url: answer.url, redirected: answer.redirected, body: await answer.text() };
        } catch (error) {
          return { failed: String(error) };
        }
      },
      [url, options],
    );
  },
};

console.log(JSON.stringify({ ready: browser.version() }));
for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  try {
    const value = await steps[command.step](await tab(command.tab), command);
    console.log(JSON.stringify({ value: value ?? null }));
  } catch (error) {
    console.log(JSON.stringify({ error: String(error) }));
  }
}
await browser.close();
