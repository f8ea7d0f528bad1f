// Walks the pages as an administrator does, in a real browser. The test that runs it does what happens elsewhere: a line
// "do WORD ARGUMENT" on standard output asks it to, and it answers with a line. With OUT set, pictures are put there.
"use strict";
const { chromium } = require("playwright-core");
const fs = require("fs");
const readline = require("readline");

const { BASE, PASSWORD, OUT } = process.env;
const lines = readline.createInterface({ input: process.stdin })[Symbol.asyncIterator]();

// ask lets the test do something, and returns its answer.
async function ask(word, argument = "") {
  console.log(`do ${word} ${argument}`);
  const { value } = await lines.next();
  return value;
}

function must(holds, what) {
  if (!holds) throw new Error(what);
}

const problems = [];

async function open(browser, options) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(20000);
  page.on("pageerror", (e) => problems.push("script: " + e.message));
  page.on("console", (m) => {
    // The browser says so of each answer that is no success; the walk provokes some.
    if (m.type() === "error" && !m.text().startsWith("Failed to load resource")) problems.push("console: " + m.text());
  });
  page.on("request", (r) => {
    if (!r.url().startsWith(BASE + "/")) problems.push("asked elsewhere: " + r.url());
  });
  return page;
}

async function signIn(page, user = "admin", password = PASSWORD) {
  await page.goto(BASE + "/signin");
  await page.fill("#username", user);
  await page.fill("#password", password);
  await page.click("button.main");
  await page.waitForURL(BASE + "/");
}

async function picture(page, name) {
  if (OUT) await page.screenshot({ path: `${OUT}/${name}.png`, fullPage: true });
}

// live waits for text to come into a part of the page by itself; reloading would make the page forget the mark.
async function live(page, selector, text) {
  await page.evaluate(() => { window.notReloaded = true; });
  await page.locator(selector).filter({ hasText: text }).first().waitFor();
  must(await page.evaluate(() => window.notReloaded === true), "the page was reloaded");
}

// contrast returns texts whose colour is too near to what is behind them. WCAG 2.2, 1.4.3: 4.5 to 1.
const contrast = () => {
  const parse = (c) => c.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => {
    const f = (v) => ((v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * f(r) + 0.7152 * f(g) + 0.0722 * f(b);
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  };
  const bad = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  for (let n; (n = walker.nextNode()); ) {
    const e = n.parentElement;
    if (!n.textContent.trim() || !e.getClientRects().length || e.closest(".unseen, .skip, svg, option, :disabled")) continue;
    const a = light(parse(getComputedStyle(e).color)), b = light(behind(e));
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) bad.push(`${n.textContent.trim().slice(0, 40)} (${ratio.toFixed(2)})`);
  }
  return bad;
};

async function walk(browser) {
  const page = await open(browser, { colorScheme: "light" });

  // Signing in, by keyboard alone, after a mistake.
  await page.goto(BASE + "/queue");
  must(page.url().startsWith(BASE + "/signin"), "the pages are open to all");
  await page.keyboard.type("admin");
  await page.keyboard.press("Tab");
  await page.keyboard.type("not it");
  await page.keyboard.press("Enter");
  await page.getByRole("alert").filter({ hasText: "Wrong user name or password" }).waitFor();
  await picture(page, "signin-wrong");
  await page.locator("#password:focus").waitFor(); // it has the focus by itself
  await page.keyboard.type(PASSWORD);
  await page.keyboard.press("Enter");
  await page.waitForURL(BASE + "/queue");
  await page.keyboard.press("Tab");
  must(await page.evaluate(() => document.activeElement.classList.contains("skip")), "the first Tab does not offer to skip the navigation");

  // A login, whose password is shown once.
  await page.goto(BASE + "/logins");
  await page.fill("#username", "scanner");
  await page.selectOption("#mailbox", "bob@contoso.example");
  await page.uncheck("text=IMAP, to read");
  await page.click("text=Make login");
  const password = await page.locator("#new-password").innerText();
  must(/^[a-z0-9]{16}$/.test(password), "no password: " + password);
  await picture(page, "login-made");
  await page.reload();
  must((await page.locator("#new-password").count()) === 0, "the password is shown again");

  // It sends, and the message comes into the log by itself.
  await page.goto(BASE + "/queue?state=");
  await page.getByText("Live", { exact: true }).waitFor();
  await ask("send", password + " First report");
  await live(page, "#queue-rows tr", /sent.*First report|First report/s);
  await live(page, "#queue-rows tr", /sent/);
  await page.goto(BASE + "/logins");
  await live(page, "#logins-live tr", /scanner.*smtp from 127\.0\.0\.1/s);

  // One that Microsoft refuses for now is held, by its box, and released from its own page.
  await ask("refuse");
  await page.goto(BASE + "/queue");
  await page.getByText("Nothing is waiting").waitFor();
  await ask("send", password + " Second report");
  await live(page, "#queue-rows tr", /queued.*Second report/s);
  await picture(page, "queue-waiting");
  await page.locator("#queue-rows tr", { hasText: "Second report" }).getByRole("checkbox").check();
  await page.waitForTimeout(3000); // a round of live changes must not take the choice back
  await page.getByRole("button", { name: "Hold" }).click();
  await page.getByRole("status").filter({ hasText: "1 message: held until released" }).waitFor();
  await page.locator("#queue-rows tr", { hasText: /held.*Second report/s }).waitFor();
  await picture(page, "queue-held");
  await page.locator("#queue-rows tr", { hasText: "Second report" }).getByRole("link").click();
  await page.getByText("asked to hold").waitFor();
  await picture(page, "message-held");
  await ask("allow");
  await page.getByRole("button", { name: "Release" }).click();
  await live(page, "#message-live .headline", "sent");
  await picture(page, "message-sent");
  must((await ask("delivered")) === "2", "not delivered exactly twice");

  // Given up with a reason, which needs two steps.
  await ask("refuse");
  await ask("send", password + " Third report");
  await page.goto(BASE + "/queue?text=third");
  await page.locator("#queue-rows tr", { hasText: "Third report" }).getByRole("link").click();
  await page.getByText("Give up").click();
  await page.fill("#reason", "not wanted");
  await page.waitForTimeout(3000); // nor may it take back what is being written
  must((await page.inputValue("#reason")) === "not wanted", "what was written is gone");
  await page.getByRole("button", { name: "Purge" }).click();
  await live(page, "#message-live .headline", "purged");
  await page.getByText("asked to purge, not wanted").or(page.getByText("not wanted")).first().waitFor();
  await ask("allow");

  // A throttled mailbox shows, on the overview and on its own page.
  await page.goto(BASE + "/");
  await live(page, "#overview-live", /in step/);
  await ask("throttle", "alice@contoso.example");
  await live(page, "#overview-live tr", /alice@contoso\.example.*throttled/s);
  await picture(page, "overview-throttled");
  await page.click("text=alice@contoso.example");
  await page.getByText("Microsoft 365 asks to wait").waitFor();
  must((await page.locator(".chart rect.throttled").count()) > 0, "the chart shows no throttling");
  await picture(page, "mailbox-throttled");
  await ask("allow");

  // The checks, as they come.
  await page.goto(BASE + "/checks");
  await page.getByRole("button", { name: "Run the checks" }).click();
  await live(page, "#checks-live", /\d+ failed, \d+ warning/);
  await page.locator("#checks-live tr", { hasText: "mailbox bob@contoso.example" }).waitFor();
  await picture(page, "checks");

  // The login is taken away, and no longer works.
  await page.goto(BASE + "/logins");
  const row = page.locator("#logins-live tr", { hasText: "scanner" });
  await row.getByText("Revoke").first().click();
  await row.getByRole("button", { name: "Revoke scanner now" }).click();
  await page.getByRole("status").filter({ hasText: "scanner is revoked" }).waitFor();
  must((await ask("refused", password)) === "yes", "a revoked login still sends");

  // All pages, in both themes, wide and on a phone: nothing runs out of the screen, all text can be told from its ground.
  const all = ["/", "/mailboxes/bob@contoso.example", "/queue?state=", "/logins", "/clients", "/checks", "/mail"];
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 390, 320]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 844 });
      for (const path of all) {
        await page.goto(BASE + path);
        const over = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
        if (over > 0) problems.push(`${path} is ${over} wider than ${width}`);
        for (const text of await page.evaluate(contrast)) problems.push(`${path}, ${colorScheme}: too little contrast: ${text}`);
        await picture(page, `${path.replace(/\W+/g, "-").replace(/^-|-$/g, "") || "overview"}-${colorScheme}-${width}`);
      }
    }
  }
  await page.setViewportSize({ width: 1280, height: 800 });

  // Without JavaScript the same is done by reloading.
  const plain = await open(browser, { javaScriptEnabled: false });
  await signIn(plain);
  await ask("refuse");
  await ask("submit", "Fourth report");
  await plain.goto(BASE + "/queue");
  await plain.locator("#queue-rows tr", { hasText: "Fourth report" }).getByRole("checkbox").check();
  await plain.getByRole("button", { name: "Hold" }).click();
  await plain.getByText("1 message: held until released").waitFor();
  await ask("allow");

  // Signed out in one place, the other stays; signed out there, an open page leaves by itself.
  await page.goto(BASE + "/queue");
  await page.getByText("Live", { exact: true }).waitFor();
  const other = await page.context().newPage();
  await other.goto(BASE + "/");
  await other.getByRole("button", { name: "Sign out" }).click();
  await other.waitForURL(/\/signin/);
  await page.waitForURL(/\/signin/);
  await plain.goto(BASE + "/");
  must(plain.url() === BASE + "/", "signing out ended somebody else's session");
}

(async () => {
  if (OUT) fs.mkdirSync(OUT, { recursive: true });
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM,
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"],
  });
  try {
    await walk(browser);
  } finally {
    await browser.close();
  }
  must(problems.length === 0, [...new Set(problems)].join("\n"));
  console.log("done");
  process.exit(0);
})().catch((e) => {
  console.error(e.stack || e);
  process.exit(1);
});
