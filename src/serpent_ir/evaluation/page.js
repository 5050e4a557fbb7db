// Orders the photographs by what is chosen; text by the alphabet, numbers from large to small.
const order = document.getElementById("order");
order.addEventListener("change", () => {
  const [key, sign] = order.value.split(" ");
  const articles = [...document.querySelectorAll("article")];
  const compare = key === "name"
    ? (a, b) => a.dataset.name.localeCompare(b.dataset.name)
    : (a, b) => Number(sign) * (Number(b.dataset[key]) - Number(a.dataset[key]));
  articles.sort(compare).forEach((article) => article.parentNode.append(article));
});
