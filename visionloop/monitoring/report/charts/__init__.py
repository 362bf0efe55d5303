"""The report's charts: Altair describes them, Vega-Lite draws them, the page holds the SVG."""
