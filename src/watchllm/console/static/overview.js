// Renews the numbers of the overview while somebody looks at it. The page is complete without this.
const PERIOD_MS = 3000;
const place = document.getElementById("live");
const pulse = document.getElementById("pulse");

async function renew() {
  if (document.hidden) return;
  try {
    const answer = await fetch("/live", { cache: "no-store", redirect: "error" });
    if (answer.status === 401) {
      location.reload(); // The session has ended: the server shows the sign-in.
      return;
    }
    if (!answer.ok) throw new Error(`status ${answer.status}`);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    place.replaceChildren(...fresh.body.childNodes);
    pulse.textContent = "● live";
    pulse.classList.remove("lost");
  } catch {
    pulse.textContent = "✕ console does not answer";
    pulse.classList.add("lost");
  }
  pulse.hidden = false;
}

setInterval(renew, PERIOD_MS);
document.addEventListener("visibilitychange", renew);
