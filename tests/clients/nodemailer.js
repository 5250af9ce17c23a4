// Sends one message with Nodemailer: node nodemailer.js PORT USER PASSWORD tls|clear SENDER RECIPIENT SUBJECT
const [port, user, pass, security, from, to, subject] = process.argv.slice(2);
const options = { host: "localhost", port: Number(port), auth: { user, pass } };
if (security === "tls") options.requireTLS = true;
else options.ignoreTLS = true; // it turns TLS on by itself where it is offered
require("nodemailer")
  .createTransport(options)
  .sendMail({ from, to, subject, text: "sent by a real client" })
  .catch((fault) => {
    console.error(String(fault));
    process.exit(1);
  });
