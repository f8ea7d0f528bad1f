// Sends a file as it is with nodemailer: PORT USER PASSWORD FILE RCPT,RCPT
const fs = require('fs');
const [port, user, pass, file, rcpts] = process.argv.slice(2);
const transport = require('nodemailer').createTransport({ host: '127.0.0.1', port: +port, secure: false, ignoreTLS: true, auth: { user, pass } });
transport.sendMail({ envelope: { from: user, to: rcpts.split(',') }, raw: fs.readFileSync(file) })
  .then(info => { console.log(info.response); transport.close(); }, err => { console.error(err.message); process.exit(1); });
