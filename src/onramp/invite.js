// The secret is behind the #, which browsers send to nobody.
const secret = location.hash.slice(1);
const form = document.forms[0];
const { name, password, again } = form.elements;
const tell = (text) => (document.querySelector("output").textContent = text);
if (!secret) tell("This link has no invitation: open it as it was sent to you.");
form.onsubmit = async (event) => {
  event.preventDefault();
  if (password.value !== again.value) return tell("The passwords are not the same.");
  const button = form.querySelector("button");
  button.disabled = true;
  try {
    const body = JSON.stringify({ invite: secret, name: name.value, password: password.value });
    const answer = await fetch(location.pathname, { method: "POST", body });
    if (answer.ok) {
      form.remove();
      return tell("The account is made. You can log in.");
    }
    tell(`That did not work: ${(await answer.json()).message}.`);
  } catch {
    tell("The server cannot be reached. Try again.");
  }
  button.disabled = false;
};
