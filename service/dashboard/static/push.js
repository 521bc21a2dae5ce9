// Subscribes this browser, and hands the subscription over with the form.

const form = document.getElementById("push");
const state = document.getElementById("push-state");

function bytes(text) {
  const plain = atob(text.replaceAll("-", "+").replaceAll("_", "/") + "=".repeat((4 - (text.length % 4)) % 4));
  return Uint8Array.from(plain, (character) => character.charCodeAt(0));
}

function same(left, right) {
  return left?.byteLength === right.byteLength && right.every((byte, place) => byte === new Uint8Array(left)[place]);
}

async function subscribe() {
  if ((await Notification.requestPermission()) !== "granted") {
    throw new Error("Notifications are not allowed for this address; the browser's settings say so.");
  }
  await navigator.serviceWorker.register("/service-worker.js");
  const { pushManager } = await navigator.serviceWorker.ready;
  const key = bytes(form.dataset.key);
  const former = await pushManager.getSubscription();
  // One that was made under another key takes nothing of ours.
  if (former && !same(former.options.applicationServerKey, key)) await former.unsubscribe();
  return pushManager.subscribe({ userVisibleOnly: true, applicationServerKey: key });
}

if (!("serviceWorker" in navigator && "PushManager" in window)) {
  state.textContent = window.isSecureContext
    ? "This browser knows no push notifications."
    : "Browsers allow this by https or on this machine only: come by Klingel's https address.";
} else {
  form.hidden = false;
  state.textContent = "";
  form.elements.description.value = navigator.userAgentData?.brands?.at(-1)?.brand ?? "A browser";
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    state.textContent = "Asking the browser…";
    try {
      form.elements.subscription.value = JSON.stringify(await subscribe());
      form.submit();
    } catch (error) {
      state.textContent = error.message;
    }
  });
}
